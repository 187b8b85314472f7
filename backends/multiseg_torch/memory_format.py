"""Choose the order in memory of a training batch: channels_last where the network allows it and its layers gain from it.

oneDNN's convolutions and batch normalization's statistics are faster over channels_last, and every operation passes the order on
to its output. Values, shapes, parameters, solver state and snapshots are the same. The choice depends on the network's layers
alone, so a resumed training makes it again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# functions whose result depends on the order of a tensor in memory
DEPENDENT = frozenset((
    Tensor.as_strided, torch.as_strided, Tensor.stride, Tensor.is_contiguous, Tensor.data_ptr, Tensor.storage_offset,
    Tensor.untyped_storage, Tensor.numpy,
))  # fmt: skip


def chosen(model: nn.Module, lowered: bool, images: Tensor) -> torch.memory_format:
    """Return the memory format of training batches for ``model``; ``images`` (N, C, H, W) are for a trial, of two images or more.

    It is contiguous if layers are ``lowered``, whose patches are faster to extract from NCHW, if there is no two-dimensional
    convolution of windows, on a GPU, where it was not measured, and if the network's code depends on the order in memory. The
    model's parameters and buffers do not change.
    """
    if lowered or images.device.type != "cpu" or not any(map(_gains, model.modules())):
        return torch.contiguous_format
    return torch.channels_last if _allows(model, images) else torch.contiguous_format


def _gains(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1 and module.groups == 1


def _allows(model: nn.Module, images: Tensor) -> bool:
    """Return whether a training step on channels_last images succeeds without functions that depend on the order in memory."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    was_training = model.training
    model.train()
    try:
        with torch.enable_grad(), _Calls() as calls:
            output = model(images.contiguous(memory_format=torch.channels_last))
            if output.requires_grad:
                output.sum().backward()
        allowed = not calls.dependent
    except Exception:  # e.g. of Tensor.view; any other error is reported by the training itself
        allowed = False
    model.zero_grad(set_to_none=True)
    model.train(was_training)
    with torch.no_grad():
        for buffer, value in buffers:
            buffer.copy_(value)
    return allowed


class _Calls(TorchFunctionMode):
    """Records whether one of the functions DEPENDENT was called."""

    def __init__(self) -> None:
        super().__init__()
        self.dependent = False

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.dependent = self.dependent or function in DEPENDENT
        return function(*args, **(kwargs or {}))
