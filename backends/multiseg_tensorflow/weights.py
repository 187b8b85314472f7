"""How a variable's array becomes a neutral weight, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg_tensorflow import digits

Shape = tuple[int, ...]

# the last part of a variable's name, as TensorFlow's layer libraries and users give it -> the neutral one
PARTS = {
    "weights": "weight", "kernel": "weight", "weight": "weight", "w": "weight", "filter": "weight", "filters": "weight",
    "depthwise_weights": "weight", "depthwise_kernel": "weight", "gamma": "weight",
    "biases": "bias", "bias": "bias", "b": "bias", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """A variable's neutral name and layout: its array is seen as ``seen``, its axes put in the order ``axes``, and the
    result seen as ``shape``."""

    name: str
    seen: Shape
    axes: Shape
    shape: Shape

    def neutral(self, value: Any) -> Any:
        """A copy of a variable's array in neutral layout."""
        return np.ascontiguousarray(value.reshape(self.seen).transpose(self.axes)).reshape(self.shape)

    def own(self, value: Any, shape: Sequence[int]) -> Any:
        """The inverse of :meth:`neutral`, for a variable of ``shape``; a copy, as TensorFlow keeps an array that it is fed."""
        middle = value.reshape([self.seen[axis] for axis in self.axes])
        return np.array(middle.transpose(np.argsort(self.axes)).reshape(shape))


def plain(name: str, shape: Sequence[int]) -> Weight:
    """By its rank alone: HWIO to OIHW, HWOI to IOHW, and (in, out) to (out, in)."""
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(len(shape), tuple(range(len(shape))))
    return Weight(name, tuple(shape), axes, tuple(shape[axis] for axis in axes))


def depthwise(name: str, shape: Sequence[int]) -> Weight:
    """HWCM, M outputs for each of C channels, to (CM, 1, H, W)."""
    height, width, channels, multiplier = shape
    return Weight(name, tuple(shape), (2, 3, 0, 1), (channels * multiplier, 1, height, width))


def pointwise(name: str, shape: Sequence[int]) -> Weight:
    """(in, out) of a product at each pixel, to (out, in, 1, 1)."""
    return Weight(name, tuple(shape), (1, 0), (shape[1], shape[0], 1, 1))


def dense(name: str, shape: Sequence[int], image_in: Shape | None, image_out: Shape | None) -> Weight:
    """(in, out) to (out, in); features that are a flattened image (H, W, C) to C, H, W."""
    sides = [image_in or (shape[0],), image_out or (shape[1],)]
    first, last = (_channels_first(len(side)) for side in sides)
    axes = (*(axis + len(sides[0]) for axis in last), *first)
    return Weight(name, (*sides[0], *sides[1]), axes, (shape[1], shape[0]))


def vector(name: str, shape: Sequence[int], image: Shape | None = None) -> Weight:
    """As it is, but for a flattened image (H, W, C) as C, H, W."""
    seen = image or tuple(shape)
    return Weight(name, seen, _channels_first(len(seen)), tuple(shape))


def _channels_first(rank: int) -> Shape:
    return (2, 0, 1) if rank == 3 else tuple(range(rank))


def split_name(name: str) -> tuple[str, str | None]:
    """A variable's layer and part: ``model/a/conv1/weights`` to ``a.conv1``, ``weight``; None for a part with no name."""
    *scope, last = name.split("/")
    while scope[:1] == [digits.GraphKeys.MODEL]:  # twice in a graph that was exported from a tower
        del scope[0]
    part = PARTS.get(re.sub(r"_\d+$", "", last).lower())
    if part is None or not scope:
        return ".".join([*scope, last]), part if not scope else None
    return ".".join(scope), part


def neutral_name(name: str) -> str:
    """``model/conv1/weights`` to ``conv1.weight``, whichever of TensorFlow's layer libraries made the variable."""
    layer, part = split_name(name)
    return f"{layer}.{part}" if part else layer
