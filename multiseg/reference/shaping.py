"""Layers that move numbers about."""

from __future__ import annotations

from typing import Any

import numpy as np

from multiseg.reference.bounded import Array, Bounded, gamma, total
from multiseg.reference.rule import Given, Gradients, Pull
from multiseg.topology.vocabulary import axis_index, crop_bounds


def reshape(given: Given) -> tuple[list[Bounded], Pull]:
    """Flatten, Reshape and Squeeze: the shape that the layer makes."""
    (x,) = given.inputs
    count, before = len(x.value), x.value.shape
    return [x.mapped(lambda v: v.reshape(count, *given.layer.shapes[0]))], lambda gradients: (
        [gradients[0].mapped(lambda v: v.reshape(before))], {},
    )  # fmt: skip


def transpose(given: Given) -> tuple[list[Bounded], Pull]:
    """Axes in another order."""
    perm = given.said["perm"]
    back = np.argsort(perm)
    return [given.inputs[0].mapped(lambda v: v.transpose(perm))], lambda gradients: (
        [gradients[0].mapped(lambda v: v.transpose(back))], {},
    )  # fmt: skip


def concat(given: Given) -> tuple[list[Bounded], Pull]:
    """Inputs one after the other along an axis."""
    axis = 1 + axis_index(given.said["axis"], given.inputs[0].value.shape[1:])
    ends = np.cumsum([x.value.shape[axis] for x in given.inputs])[:-1]
    value = np.concatenate([x.value for x in given.inputs], axis)
    bound: Array | float = 0.0
    if not all(x.exact for x in given.inputs):
        bound = np.concatenate([np.broadcast_to(x.bound, x.value.shape) for x in given.inputs], axis)

    def pull(gradients: list[Bounded]) -> Gradients:
        (g,) = gradients
        return [g.mapped(lambda v, i=i: np.split(v, ends, axis)[i]) for i in range(len(given.inputs))], {}  # type: ignore[misc]

    return [Bounded(value, bound)], pull


def split(given: Given) -> tuple[list[Bounded], Pull]:
    """Parts of an input along an axis."""
    (x,) = given.inputs
    axis = 1 + axis_index(given.said["axis"], x.value.shape[1:])
    ends = np.cumsum(given.said["split"])[:-1]
    parts = [x.mapped(lambda v, i=i: np.split(v, ends, axis)[i]) for i in range(len(ends) + 1)]  # type: ignore[misc]

    def pull(gradients: list[Bounded]) -> Gradients:
        value = np.concatenate([g.value for g in gradients], axis)
        bound = np.concatenate([np.broadcast_to(g.bound, g.value.shape) for g in gradients], axis)
        return [Bounded(value, bound)], {}

    return parts, pull


def cut(given: Given) -> tuple[list[Bounded], Pull]:
    """Slice and Crop: a part of the first input."""
    x, crop = given.inputs[0], given.layer.type == "Crop"
    shape = x.value.shape
    said = crop_bounds(given.said, [each.value.shape[1:] for each in given.inputs]) if crop else given.said
    part = [slice(None)] * x.value.ndim
    for each, start, end in zip(said["axes"], said["starts"], said["ends"], strict=True):
        part[1 + axis_index(each, shape[1:])] = slice(start, end)

    def around(v: Array) -> Array:
        whole = np.zeros(shape)
        whole[tuple(part)] = v
        return whole

    def pull(gradients: list[Bounded]) -> Gradients:
        others = [Bounded(np.zeros_like(each.value)) for each in given.inputs[1:]]  # lend their size alone
        return [gradients[0].mapped(around), *others], {}

    return [x.mapped(lambda v: v[tuple(part)])], pull


def pad(given: Given) -> tuple[list[Bounded], Pull]:
    """Borders: of a value, of the edge, or reflected; negative ones cut off."""
    (x,), (top, left, bottom, right) = given.inputs, given.said["pads"]
    mode, value = given.said["mode"], float(np.float32(given.said["value"] or 0.0))
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
        # borders add to what they repeat
        times = np.bincount(rows).max() * np.bincount(columns).max()
        return [Bounded(moved.value, moved.bound + gamma(int(times)) * back(g.size))], {}

    bound = 0.0 if x.exact else ahead(np.asarray(x.bound), 0.0)
    return [Bounded(ahead(x.value, value), bound)], pull


def _source(n: int, before: int, after: int, mode: str) -> Array:
    """Which of n pixels each pixel of the padded axis is; -1 for none."""
    at = np.arange(-before, n + after)
    if mode == "edge":
        return np.clip(at, 0, n - 1)
    if mode == "reflect":
        period = 2 * (n - 1)
        return np.abs((at + (n - 1)) % period - (n - 1)) if period else np.zeros_like(at)
    return np.where((at < 0) | (at >= n), -1, at)


def nothing(given: Given) -> tuple[list[Bounded], Pull]:
    """A layer that hands its input on, such as a dropout that predicts."""
    return [total([given.inputs[0]])], lambda gradients: (gradients, {})
