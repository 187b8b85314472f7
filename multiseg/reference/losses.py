"""Losses and their gradients at the output."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from multiseg.reference.bounded import EXP, LOG, TINY, Array, Bounded, U, gamma


def by_element(
    name: str, output: Bounded, labels: Array, options: Mapping[str, float] | None = None
) -> tuple[Bounded, Bounded]:
    """Return a named loss, the mean over all elements, and its gradient. Labels (N, C, H, W) are exact."""
    target = labels.reshape(output.value.shape).astype(np.float64)
    d, count = output.value - target, output.value.size
    off = output.bound + gamma(1) * np.abs(d)
    formula = FORMULAS[name](d, **(options or {}))
    value, slope = formula.value, formula.slope
    loss = Bounded(
        np.asarray(value.mean()),
        np.asarray((off * np.abs(slope) + gamma(4) * value).mean() + gamma(count) * value.mean()),
    )
    beyond = np.where(formula.kink <= off, formula.jump, 0.0)
    bound = (formula.change * off + beyond + gamma(4) * np.abs(slope)) / count
    return loss, Bounded(slope / count, bound)


@dataclass(frozen=True)
class Elementwise:
    """A loss of each difference: ``value``; ``slope``, its derivative; ``change``, the largest second derivative; ``kink``, the
    distance from where the slope jumps; ``jump``, the height of that jump."""

    value: Array
    slope: Array
    change: float
    kink: Array | float = math.inf
    jump: float = 0.0


def l1(d: Array) -> Elementwise:
    """Return |d|, whose slope is taken as 0 at 0."""
    return Elementwise(np.abs(d), np.sign(d), 0.0, np.where(d == 0, np.inf, np.abs(d)), 2.0)


def l2(d: Array) -> Elementwise:
    """Return d^2."""
    return Elementwise(d * d, 2 * d, 2.0)


def smooth_l1(d: Array) -> Elementwise:
    """Return d^2 / 2 up to |d| = 1, |d| - 1/2 beyond (Girshick 2015, https://arxiv.org/abs/1504.08083, eq. 3)."""
    return Elementwise(np.where(np.abs(d) < 1, d * d / 2, np.abs(d) - 0.5), np.clip(d, -1, 1), 1.0)


def huber(d: Array, delta: float) -> Elementwise:
    """Return d^2 / 2 up to |d| = delta, delta (|d| - delta / 2) beyond (Huber 1964, https://doi.org/10.1214/aoms/1177703732)."""
    size = np.abs(d)
    return Elementwise(np.where(size <= delta, d * d / 2, delta * (size - delta / 2)), np.clip(d, -delta, delta), 1.0)


FORMULAS: dict[str, Callable[..., Elementwise]] = {"l1": l1, "l2": l2, "smooth_l1": smooth_l1, "huber": huber}


def cross_entropy(scores: Bounded, labels: Array, ignored: Collection[int] = ()) -> tuple[list[Bounded], Bounded]:
    """Return the mean cross entropy of the softmax of scores (N, classes) or (N, classes, H, W), and its gradient.

    Labels are class indices (N, 1, 1, 1) or (N, 1, H, W); the mean is over those that are not in ``ignored``, 0 if there are
    none. The first result lists the values that frameworks return: Caffe clips probabilities at the smallest normal float32
    (softmax_loss_layer.cpp), so its loss of an image or pixel is at most 87.3.
    """
    classes = scores.value.shape[1]
    flat = np.moveaxis(scores.value.reshape(len(labels), classes, -1), 1, 2).reshape(-1, classes)
    off = np.broadcast_to(scores.bound, scores.value.shape).max()
    counted = ~np.isin(labels.reshape(-1), list(ignored))
    count = max(int(counted.sum()), 1)
    indices = np.where(counted, labels.reshape(-1), 0).astype(int)
    shifted = flat - flat.max(1, keepdims=True)
    powers = np.exp(shifted)
    sums = powers.sum(1)
    each = np.log(sums) - shifted[range(len(flat)), indices]
    rounding = gamma(classes + 2) + LOG * U * np.abs(np.log(sums)) + 2 * U * (np.abs(shifted).max(1) + 1) + EXP * U

    def mean(losses: Array) -> Bounded:
        value = (losses * counted).sum() / count
        error = ((2 * off + rounding) * counted).sum() / count
        return Bounded(np.asarray(value), np.asarray(error + gamma(len(flat)) * value))

    losses = [mean(each), mean(np.minimum(each, -math.log(TINY)))]
    probabilities = powers / sums[:, None]
    slope = probabilities.copy()
    slope[range(len(flat)), indices] -= 1
    slope, probabilities = slope * counted[:, None], probabilities * counted[:, None]
    relative = 2 * off + gamma(classes + 4) + 2 * (np.abs(shifted) + EXP) * U
    bound = (probabilities * relative + gamma(3) * np.abs(slope)) / count

    def back(v: Array) -> Array:
        pixels = math.prod(scores.value.shape[2:])
        return np.moveaxis(v.reshape(len(labels), pixels, classes), 2, 1).reshape(scores.value.shape)

    return losses, Bounded(back(slope / count), back(bound))
