"""The named losses and their gradients at the output: one row per loss in FORMULAS or OF_CLASSES; see docs/losses.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from multiseg.reference import class_losses
from multiseg.reference.bounded import Array, Bounded, gamma


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


@dataclass(frozen=True)
class Labelled:
    """What a loss of classes depends on besides scores and labels: its parameters, class weights, and the ignored labels."""

    options: Mapping[str, float]
    weights: Sequence[float] = ()
    ignored: Collection[int] = ()


OF_CLASSES: dict[str, Callable[[Bounded, Array, Labelled], class_losses.Result]] = {
    "cross_entropy": lambda scores, labels, by: class_losses.cross_entropy(scores, labels, by.ignored, by.weights),
    "dice": lambda scores, labels, by: class_losses.dice(scores, labels, by.ignored, smooth=by.options["smooth"]),
    "cross_entropy+dice": lambda scores, labels, by: class_losses.cross_entropy_and_dice(
        scores, labels, by.ignored, by.weights, smooth=by.options["smooth"]
    ),
    "focal": lambda scores, labels, by: class_losses.focal(
        scores, labels, by.ignored, by.weights, exponent=by.options["gamma"]
    ),
    "binary_cross_entropy": lambda scores, labels, by: class_losses.binary_cross_entropy(
        scores, labels, by.ignored, label_max=by.options["label_max"]
    ),
}


def named(
    name: str,
    output: Bounded,
    labels: Array,
    options: Mapping[str, float] | None = None,
    weights: Sequence[float] = (),
    ignored: Collection[int] = (),
) -> class_losses.Result:
    """Return the values of a named loss that frameworks return (the first is the exact one), and its gradient at the output.

    The output of a loss of classes are the scores. Labels (N, C, H, W) are exact.
    """
    if name in OF_CLASSES:
        return OF_CLASSES[name](output, labels, Labelled(options or {}, weights, ignored))
    value, slope = by_element(name, output, labels, options)
    return [value], slope
