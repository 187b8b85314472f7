"""Rules for layers that rearrange, copy or omit elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from multiseg.reference.bounded import Array, Bounded, gamma, total
from multiseg.reference.rule import Gradients, LayerCall, Pull
from multiseg.topology.vocabulary import axis_index, crop_bounds


def reshape(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Flatten, Reshape and Squeeze: the input in the shape of the layer's output."""
    (x,) = call.inputs
    count, before = len(x.value), x.value.shape
    return [x.mapped(lambda v: v.reshape(count, *call.layer.shapes[0]))], lambda gradients: (
        [gradients[0].mapped(lambda v: v.reshape(before))], {},
    )  # fmt: skip


def transpose(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Transpose: the input with its axes in another order."""
    perm = call.parameters["perm"]
    back = np.argsort(perm)
    return [call.inputs[0].mapped(lambda v: v.transpose(perm))], lambda gradients: (
        [gradients[0].mapped(lambda v: v.transpose(back))], {},
    )  # fmt: skip


def concat(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Concat: the inputs concatenated along an axis."""
    axis = 1 + axis_index(call.parameters["axis"], call.inputs[0].value.shape[1:])
    ends = np.cumsum([x.value.shape[axis] for x in call.inputs])[:-1]
    value = np.concatenate([x.value for x in call.inputs], axis)
    bound: Array | float = 0.0
    if not all(x.exact for x in call.inputs):
        bound = np.concatenate([np.broadcast_to(x.bound, x.value.shape) for x in call.inputs], axis)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        return [g.mapped(lambda v, i=i: np.split(v, ends, axis)[i]) for i in range(len(call.inputs))], {}  # type: ignore[misc]

    return [Bounded(value, bound)], pull


def split(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Split: parts of the input along an axis."""
    (x,) = call.inputs
    axis = 1 + axis_index(call.parameters["axis"], x.value.shape[1:])
    ends = np.cumsum(call.parameters["split"])[:-1]
    parts = [x.mapped(lambda v, i=i: np.split(v, ends, axis)[i]) for i in range(len(ends) + 1)]  # type: ignore[misc]

    def pull(gradients: list[Bounded]) -> Gradients:
        value = np.concatenate([g.value for g in gradients], axis)
        bound = np.concatenate([np.broadcast_to(g.bound, g.value.shape) for g in gradients], axis)
        return [Bounded(value, bound)], {}

    return parts, pull


def cut(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Slice and Crop: a part of the first input."""
    x, crop = call.inputs[0], call.layer.type == "Crop"
    shape = x.value.shape
    parameters = (
        crop_bounds(call.parameters, [each.value.shape[1:] for each in call.inputs]) if crop else call.parameters
    )
    part = [slice(None)] * x.value.ndim
    for each, start, end in zip(parameters["axes"], parameters["starts"], parameters["ends"], strict=True):
        part[1 + axis_index(each, shape[1:])] = slice(start, end)

    def around(v: Array) -> Array:
        whole = np.zeros(shape)
        whole[tuple(part)] = v
        return whole

    def pull(gradients: list[Bounded]) -> Gradients:
        others = [Bounded(np.zeros_like(each.value)) for each in call.inputs[1:]]  # only provide the size
        return [gradients[0].mapped(around), *others], {}

    return [x.mapped(lambda v: v[tuple(part)])], pull


def pad(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute Pad: borders of a constant, of edge pixels, or reflected; negative pads crop."""
    (x,), (top, left, bottom, right) = call.inputs, call.parameters["pads"]
    mode, value = call.parameters["mode"], float(np.float32(call.parameters["value"] or 0.0))
    height, width = x.value.shape[2:]
    rows, columns = (
        _source(n, before, after, mode) for n, before, after in ((height, top, bottom), (width, left, right))
    )
    outside = np.logical_or.outer(rows < 0, columns < 0)
    index: Any = (slice(None), slice(None), *np.ix_(np.maximum(rows, 0), np.maximum(columns, 0)))

    def ahead(v: Array, fill: float) -> Array:
        return np.where(outside, fill, v[index])

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients

        def back(v: Array) -> Array:
            found = np.zeros(x.value.shape)
            np.add.at(found, index, np.where(outside, 0.0, v))
            return found

        moved = Bounded(back(g.value), back(np.broadcast_to(g.bound, g.value.shape)))
        if mode == "constant":
            return [moved], {}
        # gradients of borders are added to those of the pixels that they repeat
        times = np.bincount(rows).max() * np.bincount(columns).max()
        return [Bounded(moved.value, moved.bound + gamma(int(times)) * back(g.size))], {}

    bound = 0.0 if x.exact else ahead(np.asarray(x.bound), 0.0)
    return [Bounded(ahead(x.value, value), bound)], pull


def _source(n: int, before: int, after: int, mode: str) -> Array:
    """Return the index of the source pixel (of n) for each pixel of the padded axis; -1 outside."""
    at = np.arange(-before, n + after)
    if mode == "edge":
        return np.clip(at, 0, n - 1)
    if mode == "reflect":
        period = 2 * (n - 1)
        return np.abs((at + (n - 1)) % period - (n - 1)) if period else np.zeros_like(at)
    return np.where((at < 0) | (at >= n), -1, at)


def nothing(call: LayerCall) -> tuple[list[Bounded], Pull]:
    """Compute the identity, such as a dropout in prediction."""
    return [total([call.inputs[0]])], lambda gradients: (gradients, {})
