"""Rules for layers that are sums of products of input and weights, or linear in the input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from multiseg.reference.bounded import Array, Bounded, channelwise, gamma, product_gamma, reduced
from multiseg.reference.rule import Gradients, LayerCall, Pull
from multiseg.reference.windows import Windows
from multiseg.topology.vocabulary import window_pads

Product = Callable[[Array, Array], Array]


def _multiplied(product: Product, x: Bounded, w: Bounded, terms: int, steps: int = 1) -> Bounded:
    """Return a bilinear map of two bounded arrays; its sums have ``terms`` terms, and the result is rounded ``steps`` times."""
    value = product(x.value, w.value)
    bound = product(x.bound + product_gamma(terms, steps) * x.size, w.size)
    if not w.exact:
        bound = bound + product(x.size, np.asarray(w.bound))
    return Bounded(value, bound, terms)


def _with_bias(y: Bounded, bias: Array | None) -> Bounded:
    if bias is None:
        return y
    vector = channelwise(bias, y.value)
    # one more term of the sum, possibly its first
    return Bounded(y.value + vector, y.bound + gamma(1) * y.size + gamma(y.terms + 1) * np.abs(vector), y.terms)


def _of_bias(g: Bounded) -> Bounded:
    return reduced(g, (0, *range(2, g.value.ndim)))


def _weighted(
    call: LayerCall, ahead: Product, back: Product, along: Product, terms: tuple[int, int, int],
    steps: tuple[int, int, int] = (1, 1, 1),
) -> tuple[list[Bounded], Pull]:  # fmt: skip
    """Compute a layer y = ahead(x, w) + bias.

    ``back(g, w)`` is the adjoint of the map in x, ``along(x, g)`` that in w; ``terms`` are the numbers of terms of their sums,
    ``steps`` how often their results are rounded: overlapping windows, and the images of a batch, may be added up one by one.
    """
    (x,), weight = call.inputs, Bounded(np.asarray(call.weights["weight"], np.float64))
    y = _with_bias(_multiplied(ahead, x, weight, terms[0], steps[0]), call.weights.get("bias"))

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        found = {"weight": _multiplied(lambda a, b: along(b, a), g, x, terms[2], steps[2])}
        if "bias" in call.weights:
            found["bias"] = _of_bias(g)
        return [_multiplied(back, g, weight, terms[1], steps[1])], found

    return [y], pull


def conv(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute a convolution."""
    parameters, (x,), group = call.parameters, call.inputs, call.parameters["group"]
    windows = Windows.of(parameters, x.value.shape[2:], call.layer.shapes[0][1:])
    outputs, inputs = parameters["num_output"] // group, x.value.shape[1] // group
    return _weighted(
        call,
        lambda x, w: windows.convolve(x, w, group),
        lambda g, w: windows.spread(g, w, group),
        lambda x, g: windows.correlate(x, g, group),
        (inputs * math.prod(windows.kernel), outputs * windows.overlap, len(x.value) * math.prod(windows.count)),
        (1, windows.overlap + 1, len(x.value) + 1),
    )


def conv_transpose(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute a transposed convolution: the adjoint of the convolution from its output to its input."""
    parameters, (x,), group = call.parameters, call.inputs, call.parameters["group"]
    image = call.layer.shapes[0][1:]
    windows = Windows.of(parameters, image, x.value.shape[2:])
    outputs, inputs = parameters["num_output"] // group, x.value.shape[1] // group
    return _weighted(
        call,
        lambda x, w: windows.spread(x, w, group),
        lambda g, w: windows.convolve(g, w, group),
        lambda x, g: windows.correlate(g, x, group),
        (inputs * windows.overlap, outputs * math.prod(windows.kernel), len(x.value) * math.prod(windows.count)),
        (windows.overlap + 1, 1, len(x.value) + 1),
    )


def gemm(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute a fully connected layer."""
    outputs, inputs = call.layer.weights["weight"]
    return _weighted(
        call,
        lambda x, w: x @ w.T,
        lambda g, w: g @ w,
        lambda x, g: g.T @ x,
        (inputs, outputs, len(call.inputs[0].value)),
    )


def scale(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Scale: a factor, and optionally an offset, per channel."""
    size = math.prod(call.inputs[0].value.shape) // call.inputs[0].value.shape[1]
    axes = (0, *range(2, call.inputs[0].value.ndim))
    return _weighted(
        call,
        lambda x, w: x * channelwise(w, x),
        lambda g, w: g * channelwise(w, g),
        lambda x, g: (x * g).sum(axes),
        (1, 1, size),
        (2, 2, 2),
    )


def linear(
    x: Bounded, ahead: Callable[[Array], Array], back: Callable[[Array], Array], terms: tuple[int, int]
) -> tuple[list[Bounded], Pull]:
    """Compute a linear map without weights, with non-negative factors; ``back`` is its adjoint."""

    def through(map: Callable[[Array], Array], v: Bounded, count: int) -> Bounded:
        return Bounded(map(v.value), map(v.rounded(count)), count)

    return [through(ahead, x, terms[0])], lambda gradients: ([through(back, gradients[0], terms[1])], {})


def average_pool(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute AveragePool: window sums divided by the number of pixels, including padding with ``count_include_pad``."""
    (x,), parameters = call.inputs, call.parameters
    size = x.value.shape[2:]
    windows = Windows.of(parameters, size, call.layer.shapes[0][1:])
    pads = window_pads(parameters, size) if parameters["count_include_pad"] else [0, 0, 0, 0]
    divisors = []
    for i in range(2):
        starts = np.arange(windows.count[i]) * windows.strides[i] - windows.pads[i]
        ends = starts + (windows.kernel[i] - 1) * windows.dilations[i] + 1
        divisors.append(np.minimum(ends, size[i] + pads[i + 2]) - np.maximum(starts, -pads[i]))
    count = np.outer(*divisors)
    each = np.ones((1, 1, 1, 1, *windows.kernel))
    return linear(
        x,
        lambda v: windows.gather(v).sum((4, 5)) / count,
        lambda g: windows.scatter((g / count)[..., None, None] * each),
        (math.prod(windows.kernel) + 2, windows.overlap + 2),
    )


def reduce(call: LayerCall, mean: bool, axes: tuple[int, ...], keepdims: bool) -> tuple[list[Bounded], Pull]:
    """Compute a sum or mean along axes, counted with the batch."""
    (x,) = call.inputs
    shape = x.value.shape
    count = math.prod(shape[axis] for axis in axes)
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    factor = 1 / count if mean else 1.0

    def back(g: Array) -> Array:
        spread: Array = np.broadcast_to(g.reshape(kept) * factor, shape).copy()
        return spread

    return linear(x, lambda v: v.sum(axes, keepdims=keepdims) * factor, back, (count + 2 * mean, 2 * int(mean)))


def resize(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Resize as a product with one matrix per axis."""
    (x,), out = call.inputs, call.layer.shapes[0][1:]
    parameters = call.parameters
    (rows, row_steps), (columns, column_steps) = (
        _resizing(n, m, parameters["mode"], parameters["coordinates"])
        for n, m in zip(x.value.shape[2:], out, strict=True)
    )
    # float32 coordinates have the rounding of numbers as large as the image; their error shifts weight between adjacent pixels
    off = gamma(4) * max(*x.value.shape[2:], *out)

    def apply(v: Array, left: Array, right: Array) -> Array:
        made: Array = left @ v @ right.T
        return made

    def ahead(v: Bounded) -> Bounded:
        bound = apply(np.asarray(v.rounded(6)) + np.zeros(v.value.shape), rows, columns)
        bound = (
            bound + off * np.abs(apply(v.value, row_steps, columns)) + off * np.abs(apply(v.value, rows, column_steps))
        )
        return Bounded(apply(v.value, rows, columns), bound, 4)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        terms = int(max((rows != 0).sum(0)) * max((columns != 0).sum(0))) * 2 + 6
        bound = apply(np.asarray(g.rounded(terms)) + np.zeros(g.value.shape), rows.T, columns.T)
        bound = (
            bound
            + off * apply(g.size, np.abs(row_steps).T, columns.T)
            + off * apply(g.size, rows.T, np.abs(column_steps).T)
        )
        return [Bounded(apply(g.value, rows.T, columns.T), bound, terms)], {}

    return [ahead(x)], pull


def _resizing(n: int, m: int, mode: str, coordinates: str) -> tuple[Array, Array]:
    """Return the matrix (m, n) that resizes n pixels to m, and its derivative: differences of the two source pixels."""
    at = np.arange(m, dtype=np.float64)
    if coordinates == "align_corners":
        at *= (n - 1) / max(m - 1, 1)
    elif coordinates == "half_pixel":
        at = (at + 0.5) * n / m - (0.5 if mode == "linear" else 0)
    else:
        at *= n / m
    matrix, steps = np.zeros((m, n)), np.zeros((m, n))
    if mode == "nearest":
        nearest = np.floor(at + 0.5) if coordinates == "align_corners" else np.floor(at)
        matrix[range(m), np.clip(nearest, 0, n - 1).astype(int)] = 1
        return matrix, steps
    at = np.clip(at, 0, n - 1)
    low = np.floor(at).astype(int)
    for row, first, part in zip(range(m), low, at - low, strict=True):
        following = min(first + 1, n - 1)
        matrix[row, first] += 1 - part
        matrix[row, following] += part
        steps[row, following] += 1
        steps[row, first] -= 1
        if part == 0 and first:  # the rounded coordinate may lie before this pixel
            steps[row, first - 1] -= 1
            steps[row, first] += 1
    return matrix, steps
