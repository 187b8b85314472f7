"""Rules for normalisation layers: batch and local response normalisation, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from multiseg.reference.bounded import (
    EXP,
    LOG,
    POW,
    ROOT,
    TINY,
    Array,
    Bounded,
    U,
    channelwise,
    gamma,
    reduced,
    result_error,
)
from multiseg.reference.rule import Gradients, LayerCall, Pull
from multiseg.reference.windows import Windows
from multiseg.topology.vocabulary import axis_index

FEW = ROOT + 5  # roundings of (x - mean) * weight / sqrt(var + epsilon) + bias, in any order


def batch_norm(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute BatchNormalization by the stored statistics, or by those of the batch: in prediction, those of each image."""
    (x,), epsilon = call.inputs, float(call.parameters["epsilon"])
    channels = x.value.shape[1]
    weight = call.weights.get("weight", np.ones(channels)).astype(np.float64)
    bias = call.weights.get("bias", np.zeros(channels)).astype(np.float64)
    axes = (0, *range(2, x.value.ndim))
    statistics = call.parameters["training_statistics" if call.training else "prediction_statistics"]
    if statistics == "batch":
        return _by_batch(call, x, weight, bias, epsilon, axes if call.training else axes[1:])
    mean, variance = (call.weights[part].astype(np.float64) for part in ("running_mean", "running_var"))
    root = 1 / np.sqrt(variance + epsilon)
    factor, centred = channelwise(weight * root, x.value), x.value - channelwise(mean, x.value)
    value = centred * factor + channelwise(bias, x.value)
    size = (x.size + np.abs(channelwise(mean, x.value))) * np.abs(factor) + np.abs(channelwise(bias, x.value))
    y = Bounded(value, x.bound * np.abs(factor) + gamma(FEW, 1) * size)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        back = Bounded(g.value * factor, g.bound * np.abs(factor) + gamma(FEW) * np.abs(g.value * factor))
        return [back], _of_affine(call, g, Bounded(centred * channelwise(root, x.value)), axes)

    return [y], pull


def _of_affine(call: LayerCall, g: Bounded, normal: Bounded, axes: tuple[int, ...]) -> dict[str, Bounded]:
    gradients = {}
    if "weight" in call.weights:
        bound = g.bound * normal.size + g.size * (normal.bound + gamma(FEW) * normal.size)
        gradients["weight"] = reduced(Bounded(g.value * normal.value, bound), axes)
    if "bias" in call.weights:
        gradients["bias"] = reduced(g, axes)
    return gradients


def batch_statistics(x: Bounded, axes: tuple[int, ...]) -> tuple[Bounded, Bounded]:
    """Return the mean and the biased variance along ``axes``, which are kept as axes of length 1."""
    count = math.prod(x.value.shape[axis] for axis in axes)
    mean = Bounded(x.value.mean(axes, keepdims=True), np.mean(np.asarray(x.rounded(count)), axes, keepdims=True))
    centred = x.value - mean.value
    # some frameworks compute E[x^2] - E[x]^2, whose rounding error is larger
    squares = np.square(x.value).mean(axes, keepdims=True)
    off_variance = (2 * np.abs(centred) * _off_centre(x, mean)).mean(axes, keepdims=True) + 2 * gamma(count) * squares
    return mean, Bounded(np.square(centred).mean(axes, keepdims=True), off_variance)


def _off_centre(x: Bounded, mean: Bounded) -> Array:
    """Return the bound of the centred values."""
    return np.asarray(x.bound + mean.bound + gamma(1) * (x.size + mean.size))


def _by_batch(
    call: LayerCall, x: Bounded, weight: Array, bias: Array, epsilon: float, axes: tuple[int, ...]
) -> tuple[list[Bounded], Pull]:
    """Normalise by the statistics along ``axes``."""
    count = math.prod(x.value.shape[axis] for axis in axes)
    centre, spread = batch_statistics(x, axes)
    centred, off = x.value - centre.value, _off_centre(x, centre)
    root = 1 / np.sqrt(spread.value + epsilon)
    off_root = np.minimum(0.5 * spread.bound / (spread.value + epsilon), 1) * root
    normal = Bounded(centred * root, off * root + np.abs(centred) * off_root + gamma(FEW) * np.abs(centred * root))
    factor = channelwise(weight, x.value)
    value = normal.value * factor + channelwise(bias, x.value)
    size = np.abs(normal.value * factor) + np.abs(channelwise(bias, x.value))
    y = Bounded(value, normal.bound * np.abs(factor) + gamma(2) * size)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        mean_g = reduced(g, axes, True, 1 / count)
        both = Bounded(g.value * normal.value, g.bound * normal.size + g.size * normal.bound)
        mean_both = reduced(both, axes, True, 1 / count)
        inner = g.value - mean_g.value - normal.value * mean_both.value
        size = g.size + mean_g.size + normal.size * mean_both.size
        off_inner = (
            g.bound + mean_g.bound + normal.size * mean_both.bound + normal.bound * mean_both.size + gamma(4) * size
        )
        scale = np.abs(factor) * root
        back = Bounded(inner * factor * root, off_inner * scale + size * np.abs(factor) * off_root)
        return [back], _of_affine(call, g, normal, (0, *range(2, x.value.ndim)))

    return [y], pull


def lrn(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute LRN: x / (bias + alpha / n * sum of neighbouring x^2)^beta, with n the size (within a channel: size^2)."""
    (x,), parameters = call.inputs, call.parameters
    size, alpha, beta, bias = (parameters[key] for key in ("size", "alpha", "beta", "bias"))
    within = bool(parameters["within_channel"])
    around, count = _neighbours(size, within, x.value.shape)

    def drift(v: Array) -> Array | float:
        """Return the rounding of Caffe's sliding sums across channels, which add one channel and subtract another."""
        return 0.0 if within else gamma(2 * v.shape[1]) * v.sum(1, keepdims=True)

    scale = bias + alpha / count * around(np.square(x.value))
    off_scale = alpha / count * (around(2 * x.size * x.bound) + drift(np.square(x.value))) + gamma(count + 4) * scale
    power = scale**-beta
    off_power = beta * power * off_scale / scale + (POW * U + result_error()) * power
    value = x.value * power
    y = Bounded(value, x.bound * power + x.size * off_power + gamma(2) * np.abs(value), count)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        ratio = g.value * value / scale
        off_ratio = (
            np.abs(ratio) * (off_scale / scale + 4 * U + result_error(3))
            + (g.bound * np.abs(value) + g.size * y.bound) / scale
        )
        factor = 2 * alpha * beta / count
        back = g.value * power - factor * x.value * around(ratio)
        off = g.bound * power + g.size * off_power
        off_sum = around(off_ratio + gamma(count + 4) * np.abs(ratio)) + drift(np.abs(ratio))
        off = off + factor * (x.size * off_sum + x.bound * around(np.abs(ratio)))
        return [Bounded(back, off + gamma(3) * (np.abs(g.value * power) + np.abs(back)), count)], {}

    return [y], pull


def _neighbours(size: int, within: bool, shape: tuple[int, ...]) -> tuple[Callable[[Array], Array], int]:
    """Return the function that sums each element's neighbours, which is its own adjoint, and the number of neighbours."""
    half = (size - 1) // 2
    if within:
        windows = Windows(shape[2:], shape[2:], (size, size), (1, 1), (1, 1), (half, half))
        return lambda v: windows.gather(v).sum((4, 5)), size * size

    def across(v: Array) -> Array:
        found = np.zeros_like(v)
        for shift in range(-half, size - half):
            to = slice(max(-shift, 0), v.shape[1] - max(shift, 0))
            found[:, to] += v[:, max(shift, 0) : v.shape[1] + min(shift, 0)]
        return found

    return across, size


def softmax(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Softmax and LogSoftmax."""
    (x,), log = call.inputs, call.layer.type == "LogSoftmax"
    axis = 1 + axis_index(call.parameters["axis"], x.value.shape[1:])
    shifted = x.value - x.value.max(axis, keepdims=True)
    powers = np.exp(shifted)
    y = powers / powers.sum(axis, keepdims=True)
    # relative error of the difference, the exponential, and the sum
    off = 2 * (np.max(x.bound) + (np.abs(shifted) + EXP + 2) * U) + gamma(x.value.shape[axis] + 3)
    if not log:
        # TensorFlow's vectorised exponential returns 0 for results up to twice the smallest normal number
        output = Bounded(y, y * off + np.where(y < 2 * TINY, y, 0.0), x.value.shape[axis])
    else:
        value = shifted - np.log(powers.sum(axis, keepdims=True))
        rounding = gamma(x.value.shape[axis] + 3) + (LOG + 2) * U * (np.abs(value) + np.abs(shifted) + 1)
        rounding = rounding + result_error() * np.abs(value)
        output = Bounded(value, 2 * np.max(x.bound) + rounding)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        terms = g.value if log else g.value * y
        off_terms = g.bound + np.zeros_like(terms) if log else g.bound * y + g.size * y * off
        sum_ = reduced(Bounded(terms, off_terms), (axis,), True)
        value = g.value - y * sum_.value if log else y * (g.value - sum_.value)
        each = y * (sum_.bound + sum_.size * off) + (g.bound if log else y * (g.bound + (g.size + sum_.size) * off))
        return [Bounded(value, each + gamma(3) * (np.abs(value) + y * sum_.size + (g.size if log else y * g.size)))], {}

    return [output], pull
