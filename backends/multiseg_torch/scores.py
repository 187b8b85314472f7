"""The scores of a network that ends in a softmax or a sigmoid, which the named losses of classes compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from multiseg.errors import ModelError
from multiseg_torch.probabilities import SIGMOIDS

SOFTMAX = (
    functional.softmax, torch.softmax, Tensor.softmax, functional.log_softmax, torch.log_softmax, Tensor.log_softmax,
)  # fmt: skip


def attach(model: nn.Module, images: Tensor, path: str, of_softmax: bool) -> None:
    """Let ``model`` attach the ``scores`` to its output if it ends in a softmax over the channels, else in a sigmoid.

    ``images`` (N, C, H, W) are for a trial. Raises ModelError naming the network file ``path`` if the output is probabilities of
    classes that are computed in another way.
    """
    functions = SOFTMAX if of_softmax else SIGMOIDS
    with torch.no_grad(), _Last(functions) as last:
        output = model(images)
    if getattr(output, "scores", None) is not None:  # of an exported network
        return
    if output is last.result:
        _wrap(model, functions)
    elif of_softmax and output.ndim > 1 and output.shape[1] > 1 and _are_probabilities(output):
        raise ModelError(
            f"{path}: its output is probabilities, and the loss takes scores; end the network before its softmax"
        )


def _are_probabilities(output: Tensor) -> bool:
    return bool((output >= 0).all()) and torch.allclose(output.sum(1), output.new_ones(()), atol=1e-5)


def _wrap(model: nn.Module, functions: tuple[Any, ...]) -> None:
    original = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _Last(functions) as last:
            output = original(*args, **kwargs)
        if output is last.result:
            output.scores = last.argument
        return output

    model.forward = forward  # type: ignore[method-assign]


class _Last(TorchFunctionMode):
    """Records the argument and the result of the last call of one of ``functions``."""

    def __init__(self, functions: tuple[Any, ...]) -> None:
        super().__init__()
        self.functions = functions
        self.argument: Any = None
        self.result: Any = None

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function in self.functions:
            self.argument, self.result = args[0] if args else (kwargs or {})["input"], result
        return result
