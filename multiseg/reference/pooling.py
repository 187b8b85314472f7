"""Layers that choose: maxima over windows, over images, and of several inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from multiseg.reference.bounded import Array, Bounded
from multiseg.reference.rule import Given, Gradients, Pull
from multiseg.reference.windows import Windows


def max_pool(given: Given) -> tuple[list[Bounded], Pull]:
    """The largest pixel of each window."""
    (x,) = given.inputs
    windows = Windows.of(given.said, x.value.shape[2:], given.layer.shapes[0][1:])

    def gather(v: Array, fill: float) -> Array:
        seen = windows.gather(v, fill)
        return seen.reshape(*seen.shape[:4], -1)

    def scatter(chosen: Array) -> Array:
        return windows.scatter(chosen.reshape(*chosen.shape[:4], *windows.kernel))

    return _largest(x, gather, scatter, windows.overlap)


def global_max_pool(given: Given) -> tuple[list[Bounded], Pull]:
    """The largest pixel of each channel."""
    (x,) = given.inputs
    shape = x.value.shape
    return _largest(x, lambda v, fill: v.reshape(*shape[:2], 1, 1, -1), lambda chosen: chosen.reshape(shape), 1)


def _largest(
    x: Bounded, gather: Callable[[Array, float], Array], scatter: Callable[[Array], Array], overlap: int
) -> tuple[list[Bounded], Pull]:
    seen = gather(x.value, -np.inf)
    slack = 0.0 if x.exact else gather(np.asarray(x.bound), 0.0).max(-1)
    value = seen.max(-1)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        first = np.zeros(seen.shape)
        np.put_along_axis(first, seen.argmax(-1)[..., None], 1.0, -1)
        # which of several that are equal, to rounding, is the largest, frameworks need not agree on
        may_be = seen >= (value - 2 * slack)[..., None]
        open_ = may_be & (may_be.sum(-1) > 1)[..., None]
        bound = scatter(first * np.broadcast_to(g.bound, g.value.shape)[..., None] + open_ * g.size[..., None])
        found = Bounded(scatter(first * g.value[..., None]), bound, overlap)
        return [Bounded(found.value, found.rounded(overlap - 1), overlap)], {}

    return [Bounded(value, slack)], pull


def maximum(given: Given) -> tuple[list[Bounded], Pull]:
    """The largest of several inputs, element by element."""
    values = np.stack([each.value for each in given.inputs], -1)
    bounds = np.stack([np.broadcast_to(each.bound, each.value.shape) for each in given.inputs], -1)
    x = Bounded(values, 0.0 if all(each.exact for each in given.inputs) else bounds)
    (made,), pull = _largest(x, lambda v, fill: v, lambda chosen: chosen, 1)

    def apart(gradients: list[Bounded]) -> Gradients:
        (g,), _ = pull(gradients)
        return [g.mapped(lambda v, i=i: v[..., i]) for i in range(values.shape[-1])], {}  # type: ignore[misc]

    return [made], apart
