"""Measure the errors of loss and gradient on a device, in float32, TF32 and bfloat16, in comparison with float64 on the CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def errors(
    model: Callable[[], nn.Module], data: Callable[[], tuple[Tensor, Tensor]], loss_of: nn.Module, device: torch.device
) -> dict[str, dict[str, float]]:
    """Return, by precision, the relative error of the loss, and the largest error of a gradient relative to its largest value.

    Networks are in evaluation mode, since random layers differ between devices.
    """
    images, labels = data()
    images, labels = images[:2], labels[:2]
    doubled = labels.double() if labels.is_floating_point() else labels
    loss, gradients = _gradients(model().double(), images.double(), doubled, loss_of, torch.float64)
    result = {}
    for name, tf32, dtype in (
        ("float32", False, torch.float32),
        ("TF32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
    ):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        found, values = _gradients(model().to(device), images.to(device), labels.to(device), loss_of, dtype)
        differences = (
            float((value - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
            for value, expected in zip(values, gradients, strict=True)
        )
        result[name] = {"loss": abs(found - loss) / abs(loss), "gradient": max(differences)}
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return result


def _gradients(
    model: nn.Module, images: Tensor, labels: Tensor, loss_of: nn.Module, dtype: torch.dtype
) -> tuple[float, list[Tensor]]:
    """Return the loss and the gradients of the parameters, in float64 on the CPU."""
    model.eval()
    with torch.autocast(images.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = loss_of(model(images), labels)
    loss.backward()
    return float(loss), [
        parameter.grad.double().cpu() for parameter in model.parameters() if parameter.grad is not None
    ]
