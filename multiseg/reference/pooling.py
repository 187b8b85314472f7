"""Rules for maxima: over windows, over images, and of several inputs."""

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

    return _largest(x, gather, scatter, windows.overlap)


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
