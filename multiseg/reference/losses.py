"""Losses and their gradients at the output."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from multiseg.reference.bounded import EXP, LOG, TINY, Array, Bounded, U, gamma


def by_element(name: str, output: Bounded, labels: Array) -> tuple[Bounded, Bounded]:
    """``l1``, ``l2`` or ``smooth_l1``: the mean over all elements, and its gradient. Labels (N, C, H, W) are exact."""
    target = labels.reshape(output.value.shape).astype(np.float64)
    d, count = output.value - target, output.value.size
    off = output.bound + gamma(1) * np.abs(d)
    value, slope, change, kink = _FORMULAS[name](d)
    loss = Bounded(
        np.asarray(value.mean()),
        np.asarray((off * np.abs(slope) + gamma(4) * value).mean() + gamma(count) * value.mean()),
    )
    jump = 2.0 if name == "l1" else 0.0
    bound = (change * off + np.where(kink <= off, jump, 0.0) + gamma(4) * np.abs(slope)) / count
    return loss, Bounded(slope / count, bound)


# Of the difference d: the loss, its derivative, how much that changes, and the distance from where it jumps.
_FORMULAS: dict[str, Callable[[Array], tuple[Array, Array, Array, Array]]] = {
    "l1": lambda d: (np.abs(d), np.sign(d), np.zeros_like(d), np.where(d == 0, np.inf, np.abs(d))),
    "l2": lambda d: (d * d, 2 * d, np.full_like(d, 2.0), np.full_like(d, np.inf)),
    "smooth_l1": lambda d: (
        np.where(np.abs(d) < 1, d * d / 2, np.abs(d) - 0.5), np.clip(d, -1, 1), np.ones_like(d), np.full_like(d, np.inf),
    ),
}  # fmt: skip


def cross_entropy(scores: Bounded, labels: Array) -> tuple[list[Bounded], Bounded]:
    """Of the softmax of scores (N, classes) or (N, classes, H, W), and class numbers of an image or a pixel each; the mean.

    Labels are (N, 1, 1, 1) or (N, 1, H, W). The values that frameworks give, and the gradient: Caffe takes no probability for
    less than the smallest normal float32 (softmax_loss_layer.cpp), so its loss of an image or pixel is 87.3 at most.
    """
    classes = scores.value.shape[1]
    flat = np.moveaxis(scores.value.reshape(len(labels), classes, -1), 1, 2).reshape(-1, classes)
    off = np.broadcast_to(scores.bound, scores.value.shape).max()
    numbers = labels.reshape(-1).astype(int)
    shifted = flat - flat.max(1, keepdims=True)
    powers = np.exp(shifted)
    sums = powers.sum(1)
    each = np.log(sums) - shifted[range(len(flat)), numbers]
    rounding = gamma(classes + 2) + LOG * U * np.abs(np.log(sums)) + 2 * U * (np.abs(shifted).max(1) + 1) + EXP * U

    def mean(losses: Array) -> Bounded:
        return Bounded(
            np.asarray(losses.mean()), np.asarray((2 * off + rounding).mean() + gamma(len(flat)) * losses.mean())
        )

    losses = [mean(each), mean(np.minimum(each, -math.log(TINY)))]
    chances = powers / sums[:, None]
    slope = chances.copy()
    slope[range(len(flat)), numbers] -= 1
    relative = 2 * off + gamma(classes + 4) + 2 * (np.abs(shifted) + EXP) * U
    bound = (chances * relative + gamma(3) * np.abs(slope)) / len(flat)

    def back(v: Array) -> Array:
        pixels = math.prod(scores.value.shape[2:])
        return np.moveaxis(v.reshape(len(labels), pixels, classes), 2, 1).reshape(scores.value.shape)

    return losses, Bounded(back(slope / len(flat)), back(bound))
