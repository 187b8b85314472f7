"""The averages that batch normalisation keeps: their update in one training step, in float64 with bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg.reference.bounded import Bounded, gamma
from multiseg.reference.normalisation import batch_statistics

FEW = 8  # roundings of an update, in any order, with a state that is divided by its weight


@dataclass(frozen=True)
class AverageRule:
    """How a framework updates an average by the statistic of a batch: ``average + weight (statistic - average)``.

    - ``rule``: `moving`: the weight is ``momentum``; `sums`: the framework keeps sums of statistics that it multiplies by
      ``1 - momentum`` at each update, and divides them by the sum of their factors, which begins as 1 (Caffe's BatchNorm);
      `cumulative`: all batches have equal weights.
    - ``unbiased``: whether a variance is that of n / (n - 1).
    """

    rule: str
    momentum: float = 0.0
    unbiased: bool = False

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> AverageRule:
        """Return the rule that a backend describes (multiseg.network.Network.describe)."""
        return cls(described["rule"], float(described.get("momentum", 0.0)), bool(described.get("unbiased", False)))

    def weight(self, number: int) -> float:
        """Return the weight of the batch in an update; ``number`` counts the updates from 1."""
        if self.rule == "cumulative":
            return 1 / number
        if self.rule == "moving":
            return self.momentum
        kept, total = float(np.float32(1 - self.momentum)), 1.0
        for _ in range(number):
            total = kept * total + 1
        return 1 / total


def statistic(x: Bounded, part: str, unbiased: bool) -> Bounded:
    """Return the mean (``running_mean``) or the variance of each channel of a batch (N, C, ...)."""
    axes = (0, *range(2, x.value.ndim))
    value = batch_statistics(x, axes)[part == "running_var"]
    count = math.prod(x.value.shape[axis] for axis in axes)
    factor = count / max(count - 1, 1) if unbiased and part == "running_var" else 1.0
    return Bounded((factor * value.value).ravel(), np.ravel(factor * np.asarray(value.bound)), count)


def updated(before: Bounded, batch: Bounded, weight: float) -> Bounded:
    """Return an average after an update by the statistic of a batch."""
    value = before.value + weight * (batch.value - before.value)
    size = before.size + abs(weight) * (before.size + batch.size)
    bound = abs(1 - weight) * before.bound + abs(weight) * batch.bound + gamma(FEW) * size
    return Bounded(value, bound, batch.terms)
