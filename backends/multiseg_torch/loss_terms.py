"""How the loss of a batch is normalised, so that the loss over several batches does not depend on their size."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from multiseg.network import LossTerms
from multiseg_torch import losses
from multiseg_torch.class_losses import ClassLoss

OF_CLASSES = (functional.cross_entropy, functional.nll_loss)


def of(criterion: Any, loss: losses.Loss, output: Tensor, labels: Tensor, batch_size: int) -> LossTerms:
    """Return a loss as pairs of total and count, see :meth:`multiseg.network.Network.evaluate`.

    ``loss`` is ``criterion`` for neutral labels. A loss that the file defines itself is a mean over the images, unless it
    returns the value of one call of cross_entropy or nll_loss, whose labels are then counted.
    """
    if isinstance(criterion, ClassLoss):
        return [(float(total), float(count)) for total, count in criterion.parts(output, labels)]
    with _Calls() as calls:
        value = float(loss(output, labels))
    count = _count(criterion, calls.made, value, output, labels)
    if count is None:
        return [(value, len(output) / batch_size)]
    return [(value * count, float(count)) if count else (0.0, 0.0)]  # the mean of nothing is not a number


def _count(criterion: Any, calls: list[_Call], value: float, output: Tensor, labels: Tensor) -> float | None:
    """Return the number of elements, or the sum of their weights, that a loss is the mean of; None if it is a sum."""
    images = len(output)
    normalization = getattr(criterion, "normalization", None)  # of the losses that multiseg_torch.exporting writes
    if normalization is not None:
        if normalization not in ("valid", "weighted"):
            return None if normalization == "none" else images
        if isinstance(criterion, losses.BY_CLASS):
            return calls[0].weight if calls else 0.0
        values = (labels * criterion.label_scale).trunc()
        return float(labels.numel() - sum(int((values == ignored).sum()) for ignored in criterion.ignore))
    if isinstance(criterion, losses.BY_ELEMENT):
        counts: dict[str, float | None] = {"mean": output.numel(), "batchmean": images, "sum": None}
        return counts[criterion.reduction]
    if len(calls) == 1 and str(calls[0].value) == str(value):  # as texts, because nan != nan
        return None if calls[0].is_sum else calls[0].weight
    if isinstance(criterion, losses.BY_CLASS) and not calls:  # not called, because no label counts
        return None if criterion.reduction == "sum" else 0
    return images


@dataclass(frozen=True)
class _Call:
    """A call of one of OF_CLASSES: its value, whether it is a sum, and the sum of the weights of the labels that count."""

    value: float
    is_sum: bool
    weight: float


class _Calls(TorchFunctionMode):
    """Records the calls of OF_CLASSES that return a scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[_Call] = []

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        value = function(*args, **(kwargs or {}))
        if function in OF_CLASSES and value.ndim == 0:
            call = inspect.signature(function).bind(*args, **(kwargs or {}))
            call.apply_defaults()
            arguments = call.arguments
            self.made.append(_Call(float(value), arguments["reduction"] == "sum", _weight_of_labels(arguments)))
        return value


def _weight_of_labels(arguments: dict[str, Any]) -> float:
    """Return the sum of the weights of the labels that count, in float64."""
    target, weight = arguments["target"], arguments["weight"]
    if target.is_floating_point():  # probabilities of classes: the mean over the positions
        classes = arguments["input"].shape[1 if arguments["input"].ndim > 1 else 0]
        return float(target.numel() / classes)
    counted = target[target != arguments["ignore_index"]]
    return float(counted.numel() if weight is None else weight.double()[counted].sum())
