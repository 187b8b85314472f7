"""Record what dropout multiplies by in a training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from multiseg.network import Array
from multiseg_torch.describing import tracing

FUNCTIONS = (
    functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d,
)  # fmt: skip
ARGUMENTS = ("input", "p", "training", "inplace")


class Recorder(TorchFunctionMode):
    """Computes each dropout of ones instead, with the same function and random numbers, and multiplies by the result.

    Those with the probability 0 are not recorded, as :func:`names` does not name them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.factors: list[Array] = []

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in FUNCTIONS:
            return func(*args, **(kwargs or {}))
        call = dict(zip(ARGUMENTS, args), **(kwargs or {}))
        images, inplace = call.pop("input"), call.pop("inplace", False) or func.__name__.endswith("_")
        factors = func(torch.ones_like(images), **call)  # like the input in its order in memory, too
        if call.get("p", 0.5) > 0:
            self.factors.append(factors.float().cpu().numpy().copy())
        return images.mul_(factors) if inplace else images * factors


def drawn(model: nn.Module, images: Tensor) -> tuple[list[Array], dict[str, Array]]:
    """Return the factors of each dropout in a forward pass, in the order of computation, and the outputs of the layers."""
    with Recorder() as recorder:
        _, values = tracing.activations_of(model, images)
    return recorder.factors, values


def names(model: nn.Module, images: Tensor) -> list[str]:
    """Return the names of the layers that drop something in training, as they are described, in the order of computation."""
    layers, _, _ = tracing.layers_of(model, [images])
    return [layer["name"] for layer in layers if layer["type"] == "Dropout" and layer["parameters"]["ratio"] > 0]
