"""Losses of classes and their gradients at the scores, in float64, with bounds of their errors in float32.

docs/losses.md has the formulas. Scores are (N, C) or (N, C, H, W), labels (N, 1, 1, 1) or (N, 1, H, W); labels in ``ignored`` do
not count. A loss is a list of the values that frameworks return, of which the first is the exact one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from multiseg.reference.bounded import EXP, LOG, POW, TINY, Array, Bounded, U, gamma

CLIPPED = 1e-20  # probability at which Caffe's InfogainLoss clips (infogain_loss_layer.hpp, kLOG_THRESHOLD)
Result = tuple[list[Bounded], Bounded]


@dataclass(frozen=True)
class _Softmax:
    """The softmax of scores, all arrays flat: (positions, C), or (positions,) of the label's class.

    ``relative`` bounds the relative error of ``p``; ``surprise`` is -log p of the label's class, with the bound ``apart``.
    Positions that do not count have ``counted`` 0 and the label 0.
    """

    p: Array
    relative: Array
    labels: Array
    counted: Array
    surprise: Array
    apart: Array
    shape: tuple[int, ...]
    images: int

    @classmethod
    def of(cls, scores: Bounded, labels: Array, ignored: Collection[int]) -> _Softmax:
        shape, images = scores.value.shape, len(labels)
        classes = shape[1]

        def flat(values: Array) -> Array:
            return np.moveaxis(values.reshape(images, classes, -1), 1, 2).reshape(-1, classes)

        values, off = flat(scores.value), flat(np.broadcast_to(scores.bound, shape)).max(1, keepdims=True)
        counted = ~np.isin(labels.reshape(-1), list(ignored))
        indices = np.where(counted, labels.reshape(-1), 0).astype(int)
        shifted = values - values.max(1, keepdims=True)
        powers = np.exp(shifted)
        sums = powers.sum(1, keepdims=True)
        relative = 2 * off + gamma(classes + 4) + 2 * (np.abs(shifted) + EXP) * U
        rows = np.arange(len(values))
        surprise = np.log(sums[:, 0]) - shifted[rows, indices]
        # as the logarithm of the sum of exponentials, or as the logarithm of a probability
        apart = relative[rows, indices] + gamma(2) * (np.abs(shifted).max(1) + 1) + LOG * U * (1 + np.abs(surprise))
        return cls(powers / sums, relative, indices, counted.astype(np.float64), surprise, apart, shape, images)

    @property
    def rows(self) -> Array:
        return np.arange(len(self.p))

    @property
    def hits(self) -> Array:
        """1 for the label's class of each position that counts, else 0: (positions, C)."""
        hits = np.zeros_like(self.p)
        hits[self.rows, self.labels] = self.counted
        return hits

    @property
    def divisor(self) -> int:
        """The number of labels that count, at least 1."""
        return max(int(self.counted.sum()), 1)

    def mean(self, values: Array, errors: Array, in_sequence: bool = False) -> Bounded:
        """Return the mean of a loss of each position that counts; with ``in_sequence`` of a sum in one variable of float32."""
        value = (values * self.counted).sum() / self.divisor
        error = (errors * self.counted).sum() / self.divisor
        rounding = _sequential(len(values) + 2) if in_sequence else gamma(len(values) + 2)
        return Bounded(np.asarray(value), np.asarray(error + rounding * abs(value)))

    def slopes(self, values: Array, bounds: Array) -> Bounded:
        """Return gradients (positions, C) in the shape of the scores; a result below TINY may be flushed to 0."""
        classes = self.shape[1]

        def back(flat: Array) -> Array:
            return np.moveaxis(flat.reshape(self.images, -1, classes), 2, 1).reshape(self.shape)

        return Bounded(back(values), back(bounds + TINY))


def cross_entropy(
    scores: Bounded, labels: Array, ignored: Collection[int] = (), weights: Sequence[float] = ()
) -> Result:
    """Return the sum of w[y] (-log p[y]) over the labels y that count, divided by their number; and its gradient.

    Caffe clips probabilities, at the smallest normal float32 (softmax_loss_layer.cpp), or with weights at CLIPPED: its loss of a
    label is at most 87.3, or 46.1 times the weight. It adds the losses of all positions in one variable of float32.
    """
    soft = _Softmax.of(scores, labels, ignored)
    weight = _weights(weights, soft)
    losses = []
    for most in (math.inf, -math.log(CLIPPED if len(weights) else TINY)):
        value = weight * np.minimum(soft.surprise, most)
        losses.append(soft.mean(value, weight * soft.apart + gamma(3) * value, in_sequence=most < math.inf))
    factor = (weight * soft.counted)[:, None] / soft.divisor
    slope = factor * (soft.p - soft.hits)
    return losses, soft.slopes(slope, factor * soft.p * (soft.relative + gamma(4)) + gamma(4) * np.abs(slope))


def focal(
    scores: Bounded, labels: Array, ignored: Collection[int] = (), weights: Sequence[float] = (), *, exponent: float
) -> Result:
    """Return the mean of w[y] (1 - p[y])^gamma (-log p[y]) over the labels y that count, and its gradient.

    gamma is ``exponent``. Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, eq. 5. With q = 1 - p[y] and L = -log p[y],
    the slope of the score k is w[y] (q^gamma + gamma p[y] q^(gamma - 1) L) (p[k] - [k = y]).
    """
    soft = _Softmax.of(scores, labels, ignored)
    weight = _weights(weights, soft)
    p, near = soft.p[soft.rows, soft.labels], soft.relative[soft.rows, soft.labels]
    q = np.maximum(1 - p, U)
    off = p * near + U
    power, power_off = _power(q, off, exponent)
    rest, rest_off = _power(q, off, exponent - 1)
    value = weight * power * soft.surprise
    error = weight * (power_off * (soft.surprise + soft.apart) + power * soft.apart) + gamma(4) * value
    height = power + exponent * p * rest * soft.surprise
    height_off = power_off + gamma(5) * height
    height_off += (
        exponent * p * (near * rest * soft.surprise + rest_off * (soft.surprise + soft.apart) + rest * soft.apart)
    )
    factor = (weight * soft.counted)[:, None] / soft.divisor
    distance = soft.p - soft.hits
    distance_off = soft.p * soft.relative + U * np.abs(distance)
    slope = factor * height[:, None] * distance
    bound = factor * (height_off[:, None] * (np.abs(distance) + distance_off) + height[:, None] * distance_off)
    return [soft.mean(value, error)], soft.slopes(slope, bound + gamma(4) * np.abs(slope))


def _power(q: Array, off: Array, exponent: float) -> tuple[Array, Array]:
    """Return q^exponent and the bound of its error, where q is wrong by up to ``off``, and at least U."""
    ends = np.maximum(q - off, U) ** exponent, (q + off) ** exponent
    value = q**exponent
    return value, np.abs(ends[1] - ends[0]) + POW * U * value


def dice(scores: Bounded, labels: Array, ignored: Collection[int] = (), *, smooth: float) -> Result:
    """Return the mean over images and classes of 1 - (2 sum p t + s) / (sum p + sum t + s), and its gradient.

    The sums are over the positions of an image that count; t is 1 where the label is the class, else 0. Source: Milletari et al.
    2016, https://arxiv.org/abs/1606.04797, section 3, with p instead of its square and the constant s, which makes the Dice
    coefficient of a class that is neither in the labels nor predicted 1.
    """
    soft = _Softmax.of(scores, labels, ignored)
    classes = soft.shape[1]

    def by_image(values: Array) -> Array:
        return values.reshape(soft.images, -1, classes)

    p, relative, hits = (by_image(values) for values in (soft.p, soft.relative, soft.hits))
    counted = soft.counted.reshape(soft.images, -1, 1)
    positions = p.shape[1]
    p_off = p * relative
    both, both_off = (p * hits).sum(1, keepdims=True), (p_off * hits).sum(1, keepdims=True)
    size, size_off = (p * counted).sum(1, keepdims=True), (p_off * counted).sum(1, keepdims=True)
    top, bottom = 2 * both + smooth, size + hits.sum(1, keepdims=True) + smooth
    top_off = 2 * (both_off + gamma(positions) * both) + gamma(3) * top
    bottom_off = size_off + gamma(positions) * size + gamma(3) * bottom
    least = np.maximum(bottom - bottom_off, TINY)
    rounding = gamma(6) + POW * U  # of the quotient, which Caffe computes as a power
    score = top / bottom
    score_off = top_off / least + top * bottom_off / (bottom * least) + rounding * score
    terms = soft.images * classes
    loss = Bounded(np.asarray((1 - score).mean()), np.asarray(score_off.mean() + gamma(terms + 4) * (1 + score).mean()))

    slope_p = (counted * top / bottom**2 - 2 * hits / bottom) / terms
    off = counted * (top_off / least**2 + 2 * top * bottom_off / least**3 + 2 * rounding * top / bottom**2)
    off = (off + 2 * hits * (bottom_off / least**2 + rounding / bottom)) / terms
    size_p = (counted * top / bottom**2 + 2 * hits / bottom) / terms  # of the terms before they cancel
    middle = (slope_p * p).sum(2, keepdims=True)
    middle_off = (off * p + np.abs(slope_p) * p_off).sum(2, keepdims=True)
    middle_off = middle_off + gamma(classes + 2) * (size_p * p).sum(2, keepdims=True)
    slope = p * (slope_p - middle)
    bound = p_off * np.abs(slope_p - middle) + (p + p_off) * (off + middle_off)
    bound = bound + gamma(6) * p * (size_p + np.abs(middle))
    return [loss], soft.slopes(slope.reshape(-1, classes), bound.reshape(-1, classes))


def cross_entropy_and_dice(
    scores: Bounded, labels: Array, ignored: Collection[int] = (), weights: Sequence[float] = (), *, smooth: float
) -> Result:
    """Return the sum of :func:`cross_entropy` and :func:`dice`."""
    entropies, slope = cross_entropy(scores, labels, ignored, weights)
    (other,), other_slope = dice(scores, labels, ignored, smooth=smooth)
    losses = [
        Bounded(value.value + other.value, value.bound + other.bound + U * (value.size + other.size))
        for value in entropies
    ]
    bound = slope.bound + other_slope.bound + U * (slope.size + other_slope.size)
    return losses, Bounded(slope.value + other_slope.value, bound)


def binary_cross_entropy(scores: Bounded, labels: Array, ignored: Collection[int] = (), *, label_max: float) -> Result:
    """Return the mean of max(z, 0) - z t + log(1 + exp(-|z|)) over the labels that count, and its gradient.

    The scores z and the labels have the same shape; t is label / ``label_max``.
    """
    z, off = scores.value, np.broadcast_to(scores.bound, scores.value.shape)
    counted = (~np.isin(labels.reshape(z.shape), list(ignored))).astype(np.float64)
    t = labels.reshape(z.shape).astype(np.float64) / label_max * counted
    divisor = max(int(counted.sum()), 1)
    tail = np.log1p(np.exp(-np.abs(z)))
    value = np.maximum(z, 0) - z * t + tail
    size = np.maximum(z, 0) + np.abs(z * t) + tail
    error = off * (1 + np.abs(t)) + gamma(6) * size + (LOG + EXP + np.abs(z)) * U * tail + LOG * U
    mean = (value * counted).sum() / divisor
    total = (size * counted).sum() / divisor
    off_mean = (error * counted).sum() / divisor
    losses = [
        Bounded(np.asarray(mean), np.asarray(off_mean + rounding(z.size + 2) * total))
        for rounding in (gamma, _sequential)
    ]
    p = np.exp(-np.logaddexp(0, -z))
    slope = (p - t) * counted / divisor
    bound = (off / 4 + (EXP + 6 + 2 * np.abs(z)) * U * p + 4 * U * np.abs(t) + 3 * U) * counted / divisor
    return losses, Bounded(slope, bound + gamma(3) * np.abs(slope) + TINY)


def _sequential(terms: int) -> float:
    """Return a bound of the relative error of a sum of positive numbers, one after the other: (1 + u)^n - 1.

    The roundings of such a sum are not independent: while it lies between two powers of 2, equal terms are rounded alike. So the
    probabilistic bound of gamma does not hold.
    """
    return math.expm1(terms * math.log1p(U))


def _weights(weights: Sequence[float], soft: _Softmax) -> Array:
    """Return the weight of each position's label."""
    return np.asarray(weights, np.float64)[soft.labels] if len(weights) else np.ones(len(soft.labels))
