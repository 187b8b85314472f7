"""The named losses: their value and their gradient at the output, for output and labels (N, C, H, W), in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from multiseg.network import NetworkSpec

Result = tuple[float, Any]


def _mean(values: Any, slopes: Any) -> Result:
    return float(values.mean()), slopes / slopes.size


def l1(output: Any, labels: Any) -> Result:
    d = output - labels
    return _mean(np.abs(d), np.sign(d))


def l2(output: Any, labels: Any) -> Result:
    d = output - labels
    return _mean(np.square(d), 2 * d)


def smooth_l1(output: Any, labels: Any) -> Result:
    d = output - labels
    return _mean(np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5), np.clip(d, -1, 1))


def huber(output: Any, labels: Any, delta: float) -> Result:
    d = output - labels
    within = np.clip(d, -delta, delta)
    return _mean(within * (d - within / 2), within)


class OfClasses:
    """The softmax of scores and the one-hot labels that count, (N, C, P)."""

    def __init__(self, scores: Any, labels: Any, spec: NetworkSpec) -> None:
        self.shape = scores.shape
        scores = scores.reshape(*scores.shape[:2], -1)
        powers = np.exp(scores - scores.max(1, keepdims=True))
        self.p = powers / powers.sum(1, keepdims=True)
        labels = labels.reshape(len(scores), 1, -1)
        counted = np.ones(labels.shape, bool) if spec.ignore_index is None else labels != spec.ignore_index
        self.counted = counted.astype(float)
        self.hits = (labels == np.arange(scores.shape[1])[:, np.newaxis]) * self.counted
        self.divisor = max(self.counted.sum(), 1)
        weights = np.array(spec.class_weights or [1.0] * scores.shape[1])
        self.weight = (self.hits * weights[:, np.newaxis]).sum(1, keepdims=True)
        self.of_label = np.where(self.counted > 0, (self.p * self.hits).sum(1, keepdims=True), 1)

    def back(self, slopes: Any) -> Any:
        """Return the gradient at the scores of the gradient ``slopes`` at the probabilities."""
        return (self.p * (slopes - (slopes * self.p).sum(1, keepdims=True))).reshape(self.shape)


def cross_entropy(output: Any, labels: Any, spec: NetworkSpec) -> Result:
    by = OfClasses(output, labels, spec)
    slopes = by.weight * (by.p * by.counted - by.hits) / by.divisor
    return float((by.weight * -np.log(by.of_label)).sum() / by.divisor), slopes.reshape(by.shape)


def focal(output: Any, labels: Any, spec: NetworkSpec, gamma: float) -> Result:
    by = OfClasses(output, labels, spec)
    rest = np.maximum(1 - by.of_label, 2.0**-24)
    value = (by.weight * rest**gamma * -np.log(by.of_label)).sum() / by.divisor
    slope = gamma * rest ** (gamma - 1) * np.log(by.of_label) - rest**gamma / by.of_label
    return float(value), by.back(by.weight * slope * by.hits / by.divisor)


def dice(output: Any, labels: Any, spec: NetworkSpec, smooth: float) -> Result:
    by = OfClasses(output, labels, spec)
    above = 2 * (by.p * by.hits).sum(2, keepdims=True) + smooth
    below = (by.p * by.counted).sum(2, keepdims=True) + by.hits.sum(2, keepdims=True) + smooth
    slopes = (above / below**2 * by.counted - 2 * by.hits / below) / above.size
    return float((1 - above / below).mean()), by.back(slopes)


def cross_entropy_and_dice(output: Any, labels: Any, spec: NetworkSpec, smooth: float) -> Result:
    (one, slope), (other, other_slope) = cross_entropy(output, labels, spec), dice(output, labels, spec, smooth)
    return one + other, slope + other_slope


def binary_cross_entropy(output: Any, labels: Any, spec: NetworkSpec, label_max: float) -> Result:
    counted = np.ones(labels.shape, bool) if spec.ignore_index is None else labels != spec.ignore_index
    targets = np.where(counted, labels, 0) / label_max
    losses = np.logaddexp(0, output) - output * targets
    divisor = max(counted.sum(), 1)
    return float((losses * counted).sum() / divisor), (1 / (1 + np.exp(-output)) - targets) * counted / divisor


BY_ELEMENT: dict[str, Callable[..., Result]] = {"l1": l1, "l2": l2, "smooth_l1": smooth_l1, "huber": huber}
OF_CLASSES: dict[str, Callable[..., Result]] = {
    "cross_entropy": cross_entropy, "dice": dice, "cross_entropy+dice": cross_entropy_and_dice, "focal": focal,
    "binary_cross_entropy": binary_cross_entropy,
}  # fmt: skip


def named(spec: NetworkSpec) -> Callable[[Any, Any], Result]:
    """Return a specification's loss as a function of output and labels, by default l2."""
    name = spec.loss or "l2"
    if name in BY_ELEMENT:
        return lambda output, labels: BY_ELEMENT[name](output, labels, **spec.loss_options)
    return lambda output, labels: OF_CLASSES[name](output, labels, spec, **spec.loss_options)


def described(spec: NetworkSpec, channels: int) -> dict[str, Any]:
    """Return the items of a network's description about a loss of classes."""
    if spec.loss not in OF_CLASSES:
        return {}
    ignored = [] if spec.ignore_index is None else [spec.ignore_index]
    if spec.loss == "binary_cross_entropy":
        return {"ignored": ignored, "logits": True, "label_range": [0, spec.loss_options["label_max"]]}
    return {"ignored": ignored, "classes": channels}


def terms(spec: NetworkSpec, output: Any, labels: Any, loss: float) -> list[tuple[float, float]]:
    """Return the terms of a loss, see multiseg.network.Network.evaluate."""
    images = float(len(labels))
    if spec.loss not in OF_CLASSES or spec.loss == "dice":
        return [(loss * images, images)]
    counted = float(labels.size if spec.ignore_index is None else (labels != spec.ignore_index).sum())
    if spec.loss == "cross_entropy+dice":
        entropy, _ = cross_entropy(output, labels, spec)
        return [(entropy * counted, counted), ((loss - entropy) * images, images)]
    return [(loss * counted, counted)]
