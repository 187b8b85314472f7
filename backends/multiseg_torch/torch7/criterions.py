"""Torch7's criterions as PyTorch losses. Class indices count from 0, as in the core; in Torch7 from 1."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multiseg_torch.losses import over_labels
from multiseg_torch.torch7.objects import Object, Problem


class MultiCriterion(nn.Module):
    """Weighted sum of several losses of one output."""

    def __init__(self, losses: list[nn.Module], weights: list[Any]) -> None:
        super().__init__()
        self.losses, self.weights = nn.ModuleList(losses), weights

    def forward(self, output: Tensor, labels: Tensor) -> Tensor:
        total = output.new_zeros(())
        for loss, weight in zip(self.losses, self.weights):
            total = total + weight * over_labels(loss)(output, labels)
        return total


MOST = 1000  # criterions in a loss; shared ones count with each use


def build(criterion: Object, built: Iterator[int] | None = None) -> nn.Module:
    """Return the loss of a criterion, after those that ``built`` counts. Raise Problem if it is invalid or not supported."""
    kind = criterion.kind
    built = itertools.count(1) if built is None else built
    if next(built) > MOST:
        raise Problem(f"{criterion.place}: the loss consists of more than {MOST} criterions")
    if kind == "MultiCriterion":
        losses = [build(each, built) for each in criterion.modules("criterions")]
        given = criterion.fields.get("weights")
        values = given.listed() if isinstance(given, Object) else [] if given is None else np.ravel(given).tolist()
        weights = [each if isinstance(each, (int, float)) else None for each in values[: len(losses)]]
        if not losses or None in weights:
            raise Problem(f"{criterion.place}: needs criterions, and numbers as their weights")
        return MultiCriterion(losses, weights + [1.0] * (len(losses) - len(weights)))
    if kind not in CRITERIONS:
        raise Problem(f"{criterion.place}: is not a supported criterion; supported are: {', '.join(CRITERIONS)}")
    nll = criterion.fields.get("nll")  # where a CrossEntropyCriterion in a .t7 file keeps its settings
    settings = nll if isinstance(nll, Object) else criterion
    reduction = "mean" if settings.flag("sizeAverage", criterion.flag("sizeAverage", True)) else "sum"
    by_class = settings.fields.get("weights")
    if isinstance(by_class, Object):
        listed = by_class.listed()
        if not all(isinstance(each, (int, float)) for each in listed):
            raise Problem(f"{criterion.place}: its weights must be numbers, one for each class")
        by_class = np.array(listed)
    if not isinstance(by_class, np.ndarray):
        return CRITERIONS[kind](reduction=reduction)
    if kind in ("SmoothL1Criterion", "AbsCriterion", "MSECriterion", "DistKLDivCriterion"):
        raise Problem(f"{criterion.place}: takes no weights")
    return CRITERIONS[kind](weight=torch.from_numpy(by_class.astype(np.float32).ravel()), reduction=reduction)


CRITERIONS: dict[str, Callable[..., nn.Module]] = {
    "SmoothL1Criterion": nn.SmoothL1Loss,
    "AbsCriterion": nn.L1Loss,
    "MSECriterion": nn.MSELoss,
    "ClassNLLCriterion": nn.NLLLoss,
    "CrossEntropyCriterion": nn.CrossEntropyLoss,
    "SpatialClassNLLCriterion": nn.NLLLoss,
    "SpatialCrossEntropyCriterion": nn.CrossEntropyLoss,
    "BCECriterion": nn.BCELoss,
    "DistKLDivCriterion": nn.KLDivLoss,
}
