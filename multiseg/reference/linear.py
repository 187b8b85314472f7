"""Layers that are sums of products of their input and their weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from multiseg.reference.bounded import Array, Bounded, channelwise, gamma, reduced
from multiseg.reference.rule import Given, Gradients, Pull
from multiseg.reference.windows import Windows
from multiseg.topology.vocabulary import window_pads

Product = Callable[[Array, Array], Array]


def _multiplied(product: Product, x: Bounded, w: Bounded, terms: int) -> Bounded:
    """A bilinear map of two bounded arrays, whose sums have so many terms."""
    value = product(x.value, w.value)
    bound = product(x.rounded(terms), w.size)
    if not w.exact:
        bound = bound + product(x.size, np.asarray(w.bound))
    return Bounded(value, bound, terms)


def _with_bias(y: Bounded, bias: Array | None) -> Bounded:
    if bias is None:
        return y
    vector = channelwise(bias, y.value)
    # one term more of the sum, which may begin with it
    return Bounded(y.value + vector, y.bound + gamma(1) * y.size + gamma(y.terms + 1) * np.abs(vector), y.terms)


def _of_bias(g: Bounded) -> Bounded:
    return reduced(g, (0, *range(2, g.value.ndim)))


def _weighted(
    given: Given, ahead: Product, back: Product, along: Product, terms: tuple[int, int, int]
) -> tuple[list[Bounded], Pull]:
    """A layer y = ahead(x, w) + bias, with the map's adjoints in x, ``back(g, w)``, and in w, ``along(x, g)``, and how many terms
    their sums have."""
    (x,), weight = given.inputs, Bounded(np.asarray(given.weights["weight"], np.float64))
    y = _with_bias(_multiplied(ahead, x, weight, terms[0]), given.weights.get("bias"))

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        found = {"weight": _multiplied(lambda a, b: along(b, a), g, x, terms[2])}
        if "bias" in given.weights:
            found["bias"] = _of_bias(g)
        return [_multiplied(back, g, weight, terms[1])], found

    return [y], pull


def conv(given: Given) -> tuple[list[Bounded], Pull]:
    """A convolution."""
    said, (x,), group = given.said, given.inputs, given.said["group"]
    windows = Windows.of(said, x.value.shape[2:], given.layer.shapes[0][1:])
    outputs, inputs = said["num_output"] // group, x.value.shape[1] // group
    return _weighted(
        given,
        lambda x, w: windows.convolve(x, w, group),
        lambda g, w: windows.spread(g, w, group),
        lambda x, g: windows.correlate(x, g, group),
        (inputs * math.prod(windows.kernel), outputs * windows.overlap, len(x.value) * math.prod(windows.count)),
    )


def conv_transpose(given: Given) -> tuple[list[Bounded], Pull]:
    """A deconvolution: the adjoint of a convolution from its output to its input."""
    said, (x,), group = given.said, given.inputs, given.said["group"]
    image = given.layer.shapes[0][1:]
    windows = Windows.of(said, image, x.value.shape[2:])
    outputs, inputs = said["num_output"] // group, x.value.shape[1] // group
    return _weighted(
        given,
        lambda x, w: windows.spread(x, w, group),
        lambda g, w: windows.convolve(g, w, group),
        lambda x, g: windows.correlate(g, x, group),
        (inputs * windows.overlap, outputs * math.prod(windows.kernel), len(x.value) * math.prod(windows.count)),
    )


def gemm(given: Given) -> tuple[list[Bounded], Pull]:
    """A fully connected layer."""
    outputs, inputs = given.layer.weights["weight"]
    return _weighted(
        given,
        lambda x, w: x @ w.T,
        lambda g, w: g @ w,
        lambda x, g: g.T @ x,
        (inputs, outputs, len(given.inputs[0].value)),
    )


def scale(given: Given) -> tuple[list[Bounded], Pull]:
    """A factor, and perhaps an offset, for each channel."""
    size = math.prod(given.inputs[0].value.shape) // given.inputs[0].value.shape[1]
    axes = (0, *range(2, given.inputs[0].value.ndim))
    return _weighted(
        given,
        lambda x, w: x * channelwise(w, x),
        lambda g, w: g * channelwise(w, g),
        lambda x, g: (x * g).sum(axes),
        (1, 1, size),
    )


def linear(
    x: Bounded, ahead: Callable[[Array], Array], back: Callable[[Array], Array], terms: tuple[int, int]
) -> tuple[list[Bounded], Pull]:
    """A linear map without weights, whose factors are not negative, and its adjoint."""

    def through(map: Callable[[Array], Array], v: Bounded, count: int) -> Bounded:
        return Bounded(map(v.value), map(v.rounded(count)), count)

    return [through(ahead, x, terms[0])], lambda gradients: ([through(back, gradients[0], terms[1])], {})


def average_pool(given: Given) -> tuple[list[Bounded], Pull]:
    """Means over windows, divided by what they count: pixels, and padding where it counts."""
    (x,), said = given.inputs, given.said
    size = x.value.shape[2:]
    windows = Windows.of(said, size, given.layer.shapes[0][1:])
    pads = window_pads(said, size) if said["count_include_pad"] else [0, 0, 0, 0]
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


def reduce(given: Given, mean: bool, axes: tuple[int, ...], keepdims: bool) -> tuple[list[Bounded], Pull]:
    """A sum or a mean along axes that count the batch."""
    (x,) = given.inputs
    shape = x.value.shape
    count = math.prod(shape[axis] for axis in axes)
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    factor = 1 / count if mean else 1.0

    def back(g: Array) -> Array:
        spread: Array = np.broadcast_to(g.reshape(kept) * factor, shape).copy()
        return spread

    return linear(x, lambda v: v.sum(axes, keepdims=keepdims) * factor, back, (count + 2 * mean, 2 * int(mean)))


def resize(given: Given) -> tuple[list[Bounded], Pull]:
    """Rows and columns of the result are sums of rows and columns of the input: one matrix for each axis."""
    (x,), out = given.inputs, given.layer.shapes[0][1:]
    said = given.said
    (rows, row_steps), (columns, column_steps) = (
        _resizing(n, m, said["mode"], said["coordinates"]) for n, m in zip(x.value.shape[2:], out, strict=True)
    )
    # float32's coordinates are rounded like numbers as large as the image; what they are off by is taken of a pixel for the next
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
    """The matrix (m, n) that makes m pixels of n, and that of the differences between the two that each is made of."""
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
        if part == 0 and first:  # the coordinate may come to lie before it
            steps[row, first - 1] -= 1
            steps[row, first] += 1
    return matrix, steps
