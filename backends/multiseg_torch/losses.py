"""The named losses and losses of network files, for float32 labels (N, C, H, W); class indices count from 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from multiseg.errors import ModelError
from multiseg.network import CLASSES, IMAGES, LabelKind, NetworkSpec, unequal_elements
from multiseg.topology.objective import Objective
from multiseg_torch import class_losses

Loss = Callable[[Tensor, Tensor], Tensor]

BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss)
BY_DIFFERENCE = (nn.L1Loss, nn.SmoothL1Loss, nn.MSELoss, nn.HuberLoss)
BY_ELEMENT = (
    *BY_DIFFERENCE, nn.BCELoss, nn.BCEWithLogitsLoss, nn.KLDivLoss,
    nn.SoftMarginLoss, nn.PoissonNLLLoss,
)  # fmt: skip


def l1() -> nn.Module:
    """Return the mean absolute difference."""
    return nn.L1Loss()


def l2() -> nn.Module:
    """Return the mean squared difference."""
    return nn.MSELoss()


def smooth_l1() -> nn.Module:
    """Return smooth L1."""
    return nn.SmoothL1Loss()


def huber(delta: float) -> nn.Module:
    """Return Huber's loss: squares up to ``delta``, absolute differences beyond."""
    return nn.HuberLoss(delta=delta)


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "l1": l1, "l2": l2, "smooth_l1": smooth_l1, "huber": huber,
    "cross_entropy": class_losses.CrossEntropy, "dice": class_losses.Dice, "focal": class_losses.Focal,
    "cross_entropy+dice": class_losses.CrossEntropyAndDice, "binary_cross_entropy": class_losses.BinaryCrossEntropy,
}  # fmt: skip


def named(spec: NetworkSpec) -> nn.Module:
    """Return the named loss of a specification."""
    assert spec.loss is not None
    factory = LOSSES[spec.loss]
    if isinstance(factory, type):
        return factory(spec.ignore_index, spec.class_weights, **spec.loss_options)
    return factory(**spec.loss_options)


def over_labels(loss: Loss, ignore: int | None = None) -> Loss:
    """Return ``loss`` adapted to neutral labels. A loss that the file defines itself receives them unchanged.

    It takes outputs in any order in memory; the file's own code receives them in NCHW.

    A loss of class indices leaves out the labels ``ignore`` as well as its own ``ignore_index``; it is 0 if no label is left.
    """
    if isinstance(loss, BY_CLASS):
        return lambda output, labels: _of_classes(loss, output, labels, ignore)
    if isinstance(loss, BY_ELEMENT):
        return lambda output, labels: loss(in_nchw(output), _like(output, labels))
    if isinstance(loss, class_losses.CrossEntropy):
        return loss
    return lambda output, labels: loss(in_nchw(output), labels)


def in_nchw(output: Tensor) -> Tensor:
    """Return an output in NCHW in memory, with its scores if it has them (multiseg_torch.scores)."""
    ordered, scores = output.contiguous(), getattr(output, "scores", None)
    if scores is not None:
        ordered.scores = scores  # type: ignore[attr-defined]
    return ordered


def _of_classes(loss: nn.Module, output: Tensor, labels: Tensor, ignore: int | None) -> Tensor:
    scale, own = float(getattr(loss, "label_scale", 1)), int(loss.ignore_index)
    if ignore is not None:
        ignored = (own + math.copysign(0.5, own)) / scale if scale != 1 else own  # what the loss truncates to ``own``
        labels = torch.where(labels == ignore, ignored, labels)
    output, labels = by_class(output, labels)
    indices = (labels * scale).long() if scale != 1 else labels.long()
    counted = indices != own
    if not bool(counted.any()):
        return output.sum() * 0  # PyTorch's mean over no label is 0 / 0
    class_losses.check_classes(indices[counted], output.shape[1])
    rows = class_losses.rows_of(output) if type(loss) in BY_CLASS and scale == 1 else None
    if rows is not None:
        output, indices = rows, indices.flatten()
    value: Tensor = loss(in_nchw(output), labels if scale != 1 else indices)
    return value


def by_class(output: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return scores (N, classes) or (N, classes, H, W), and labels (N,) or (N, H, W).

    ``scores`` that an exported network attaches to its output stay attached. Raises ModelError if the shapes do not fit.
    """
    if labels.shape[1:] == (1, 1, 1):
        scores, output = getattr(output, "scores", None), output.flatten(1)
        if scores is not None:
            output.scores = scores.flatten(1)  # type: ignore[attr-defined]
        return output, labels.flatten()
    if labels.ndim == 4 and labels.shape[1] == 1 and output.ndim == 4 and output.shape[2:] == labels.shape[2:]:
        return output, labels[:, 0]
    raise ModelError(
        f"the loss takes scores (classes, H, W) and labels (1, H, W) or (1, 1, 1); the output is "
        f"{tuple(output.shape[1:])}, the labels are {tuple(labels.shape[1:])}"
    )


def labels_of(loss: object) -> LabelKind | None:
    """Return the kind of labels that a file's loss takes; None if there is no loss or its kind is unknown."""
    if isinstance(loss, BY_CLASS):
        return CLASSES
    return IMAGES if isinstance(loss, BY_DIFFERENCE) else None


def ignored(loss: object) -> list[int]:
    """Return the labels that a loss ignores."""
    if isinstance(loss, class_losses.ClassLoss):
        return [] if loss.ignore is None else [loss.ignore]
    return [loss.ignore_index] if isinstance(loss, BY_CLASS) and loss.ignore_index >= 0 else []


def of_probabilities(loss: object) -> dict[str, Any]:
    """Return the items of a network's description about a loss whose labels are probabilities; see multiseg.network."""
    if isinstance(loss, class_losses.BinaryCrossEntropy):
        return {"logits": True, "label_range": [0, loss.label_max]}
    if not isinstance(loss, (nn.BCEWithLogitsLoss, nn.BCELoss)):
        return {}
    # an exported loss may compare scores that are attached to the output
    logits = isinstance(loss, nn.BCEWithLogitsLoss) and bool(getattr(loss, "of_output", True))
    known = not getattr(loss, "ignore", ())
    return {"logits": logits, **({"label_range": [0, round(1 / _label_scale(loss))]} if known else {})}


def is_cross_entropy(loss: object, last: str) -> bool:
    """Return whether a file's loss is the mean cross entropy of the softmax, for a network whose last layer has this type."""
    values = objective(loss) if isinstance(loss, BY_CLASS) else None
    if values is None or not Objective.from_json(values).is_mean:
        return False
    return isinstance(loss, nn.CrossEntropyLoss) or last == "LogSoftmax"


def _label_scale(loss: object) -> float:
    return float(getattr(loss, "label_scale", 1.0))


def scales_labels(loss: object) -> bool:
    """Return whether a loss multiplies its labels by a factor."""
    return _label_scale(loss) != 1


def objective(loss: object) -> dict[str, Any] | None:
    """Return a file's cross entropy as multiseg.topology.objective.

    None for any other loss, for one with label smoothing, and for a weighted one of a sigmoid.
    """
    if not isinstance(loss, (*BY_CLASS, nn.BCEWithLogitsLoss)) or loss.reduction not in ("mean", "sum"):
        return None
    sigmoid = isinstance(loss, nn.BCEWithLogitsLoss)
    smoothing, weight = getattr(loss, "label_smoothing", None), getattr(loss, "weight", None)
    if smoothing or (sigmoid and weight is not None) or getattr(loss, "pos_weight", None) is not None:
        return None
    normalization = "none" if loss.reduction == "sum" else "valid" if weight is None else "weighted"
    matrix = getattr(loss, "matrix", None)
    if weight is not None:
        matrix = torch.diag(weight.detach().cpu().double()).tolist()
    ignored = getattr(loss, "ignore", ()) if sigmoid else (loss.ignore_index,) if loss.ignore_index >= 0 else ()
    return {
        "kind": "sigmoid" if sigmoid else "softmax",
        "scores": None,
        "normalization": getattr(loss, "normalization", normalization),
        "ignore": list(ignored),
        "weight": float(getattr(loss, "factor", 1.0)),
        "label_scale": _label_scale(loss),
        "matrix": matrix,
    }


def not_a_mean(loss: Loss) -> str | None:
    """Return why a PyTorch criterion is not a mean over a batch's images with equal weights; None if it is.

    A loss that the file defines itself is assumed to be a mean.
    """
    if not isinstance(loss, (*BY_CLASS, *BY_ELEMENT)):
        return None
    name = type(loss).__name__
    if loss.reduction not in ("mean", "batchmean"):
        return f"{name}(reduction={loss.reduction!r}) is not a mean over the images"
    normalization = getattr(loss, "normalization", "valid")
    if normalization == "none":
        return f"{name} sums over the images"
    if normalization in ("full", "batch_size"):
        return None
    if normalization == "weighted" or (isinstance(loss, BY_CLASS) and loss.weight is not None):
        return f"{name} with class weights is a weighted mean, whose total weight differs between images"
    if isinstance(loss, BY_CLASS) and loss.ignore_index >= 0:
        return f"{name}(ignore_index={loss.ignore_index}) is a mean over the other classes; their pixel count differs by image"
    return None


def _like(output: Tensor, labels: Tensor) -> Tensor:
    if output.numel() != labels.numel():
        raise unequal_elements(output.shape[1:], labels.shape[1:])
    return labels.reshape(output.shape)


WORDS = {
    "L1Loss": "absolute differences",
    "SmoothL1Loss": "smooth L1 (squares below 1, absolute differences beyond)",
    "MSELoss": "squared differences",
    "HuberLoss": "Huber's loss",
    "BCELoss": "binary cross-entropy",
    "BCEWithLogitsLoss": "binary cross-entropy of the sigmoid",
    "CrossEntropyLoss": "cross-entropy of the softmax over class indices",
    "NLLLoss": "negative log-likelihood of class indices",
    "KLDivLoss": "Kullback-Leibler divergence",
}


def loss_in_words(loss: Any) -> str | None:
    """Return a description of a loss; None if there is none."""
    if loss is None:
        return None
    name = type(loss).__name__ if isinstance(loss, nn.Module) else getattr(loss, "__name__", type(loss).__name__)
    name = {"ClassLoss": "CrossEntropyLoss", "SigmoidLoss": "BCEWithLogitsLoss"}.get(name, name)  # of exported files
    if name not in WORDS:
        return f"the file's own, {name}"
    name_of_divisor = getattr(loss, "normalization", None)
    if name_of_divisor == "weighted":
        return f"{WORDS[name]}, mean, weighted by class"
    if getattr(loss, "matrix", None) is not None:
        return f"{WORDS[name]}, by a matrix, divided as Caffe's normalization {name_of_divisor}"
    if name_of_divisor not in (None, "valid"):
        return f"{WORDS[name]}, summed, divided as Caffe's normalization {name_of_divisor}"
    weighted = ", weighted by class" if getattr(loss, "weight", None) is not None else ""
    return f"{WORDS[name]}, {'summed' if getattr(loss, 'reduction', 'mean') == 'sum' else 'mean'}{weighted}"
