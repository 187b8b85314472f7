"""Rules for maxima: over windows, with the indices of the maxima, over images, and of several inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from multiseg.reference.bounded import Array, Bounded
from multiseg.reference.rule import Gradients, LayerCall, Pull
from multiseg.reference.windows import Windows


def max_pool(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute MaxPool: the largest pixel of each window."""
    (x,) = call.inputs
    windows = Windows.of(call.parameters, x.value.shape[2:], call.layer.shapes[0][1:])

    def gather(v: Array, fill: float) -> Array:
        seen = windows.gather(v, fill)
        return seen.reshape(*seen.shape[:4], -1)

    def scatter(chosen: Array) -> Array:
        return windows.scatter(chosen.reshape(*chosen.shape[:4], *windows.kernel))

    largest, pull = _largest(x, gather, scatter, windows.overlap)
    if not call.parameters["indices"]:
        return largest, pull
    return [*largest, _indices(x, gather, windows)], lambda gradients: pull(gradients[:1])


def _indices(x: Bounded, gather: Callable[[Array, float], Array], windows: Windows) -> Bounded:
    """Return the index of each window's first maximum in the plane; the bound covers all that are equal within rounding."""
    height, width = x.value.shape[2:]
    places = gather(np.arange(height * width, dtype=np.float64).reshape(1, 1, height, width), 0.0)
    candidates = gather(x.value, -np.inf)
    slack = np.zeros(candidates.shape[:-1]) if x.exact else gather(np.asarray(x.bound), 0.0).max(-1)
    may_be = candidates >= (candidates.max(-1) - 2 * slack)[..., None]
    index = np.take_along_axis(np.broadcast_to(places, candidates.shape), candidates.argmax(-1)[..., None], -1)[..., 0]
    return Bounded(index, np.where(may_be, np.abs(places - index[..., None]), 0.0).max(-1))


def max_unpool(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute MaxUnpool: zeros, and the first input at the indices that are the second; the last value where two have one."""
    x, indices = call.inputs
    count, channels = x.value.shape[:2]
    height, width = call.layer.shapes[0][1:]
    at = indices.value.reshape(count, channels, -1).astype(int)
    planes = np.zeros((count, channels, height * width))
    np.put_along_axis(planes, at, x.value.reshape(at.shape), -1)
    bound = np.zeros_like(planes)
    np.put_along_axis(bound, at, np.broadcast_to(x.bound, x.value.shape).reshape(at.shape), -1)
    unsure = np.zeros_like(at) if indices.exact else np.asarray(indices.bound).reshape(at.shape).astype(int)
    if unsure.any():  # a value may be at any index within the bound: the sum of all that may be there
        ends = np.zeros((count, channels, height * width + 1))
        sizes = np.where(unsure > 0, x.size.reshape(at.shape), 0.0)
        n, c = np.ogrid[:count, :channels]
        np.add.at(ends, (n[..., None], c[..., None], np.maximum(at - unsure, 0)), sizes)
        np.add.at(ends, (n[..., None], c[..., None], np.minimum(at + unsure + 1, height * width)), -sizes)
        bound += np.abs(np.cumsum(ends, -1)[..., :-1]) * 2
    shape = (count, channels, height, width)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        flat, off = (np.broadcast_to(v, shape).reshape(count, channels, -1) for v in (g.value, g.bound))
        largest = np.abs(flat).max(-1, keepdims=True)
        value, error = np.take_along_axis(flat, at, -1), np.take_along_axis(off, at, -1)
        error = error + np.where(unsure > 0, 2 * largest, 0.0)
        back = Bounded(value.reshape(x.value.shape), error.reshape(x.value.shape))
        return [back, Bounded(np.zeros_like(x.value))], {}

    return [Bounded(planes.reshape(shape), bound.reshape(shape))], pull


def global_max_pool(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute GlobalMaxPool: the largest pixel of each channel."""
    (x,) = call.inputs
    shape = x.value.shape
    return _largest(x, lambda v, fill: v.reshape(*shape[:2], 1, 1, -1), lambda chosen: chosen.reshape(shape), 1)


def _largest(
    x: Bounded, gather: Callable[[Array, float], Array], scatter: Callable[[Array], Array], overlap: int
) -> tuple[list[Bounded], Pull]:
    candidates = gather(x.value, -np.inf)
    slack = 0.0 if x.exact else gather(np.asarray(x.bound), 0.0).max(-1)
    value = candidates.max(-1)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        first = np.zeros(candidates.shape)
        np.put_along_axis(first, candidates.argmax(-1)[..., None], 1.0, -1)
        # frameworks may select different maxima among values that are equal within rounding
        may_be = candidates >= (value - 2 * slack)[..., None]
        open_ = may_be & (may_be.sum(-1) > 1)[..., None]
        bound = scatter(first * np.broadcast_to(g.bound, g.value.shape)[..., None] + open_ * g.size[..., None])
        found = Bounded(scatter(first * g.value[..., None]), bound, overlap)
        return [Bounded(found.value, found.rounded(overlap - 1), overlap)], {}

    return [Bounded(value, slack)], pull


def maximum(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Max: the elementwise maximum of several inputs."""
    values = np.stack([each.value for each in call.inputs], -1)
    bounds = np.stack([np.broadcast_to(each.bound, each.value.shape) for each in call.inputs], -1)
    x = Bounded(values, 0.0 if all(each.exact for each in call.inputs) else bounds)
    (made,), pull = _largest(x, lambda v, fill: v, lambda chosen: chosen, 1)

    def apart(gradients: list[Bounded]) -> Gradients:
        (g,), _ = pull(gradients)
        return [g.mapped(lambda v, i=i: v[..., i]) for i in range(values.shape[-1])], {}  # type: ignore[misc]

    return [made], apart
