"""Convert the arrays of variables to neutral weights and back."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg_tensorflow import digits

Shape = tuple[int, ...]

# last part of a variable's name, as in TensorFlow's layer libraries and users' files -> neutral part
PARTS = {
    "weights": "weight", "kernel": "weight", "weight": "weight", "w": "weight", "filter": "weight", "filters": "weight",
    "depthwise_weights": "weight", "depthwise_kernel": "weight", "gamma": "weight",
    "biases": "bias", "bias": "bias", "b": "bias", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """A variable's neutral name and layout: its array is reshaped to ``view``, transposed by ``axes``, and reshaped to
    ``shape``."""

    name: str
    view: Shape
    axes: Shape
    shape: Shape

    def to_neutral(self, value: Any) -> Any:
        """Return a variable's array in neutral layout."""
        return np.ascontiguousarray(value.reshape(self.view).transpose(self.axes)).reshape(self.shape)

    def from_neutral(self, value: Any, shape: Sequence[int]) -> Any:
        """Return the array of a variable of ``shape``, the inverse of :meth:`to_neutral`.

        It is a copy, because TensorFlow keeps a reference to an array that is fed.
        """
        transposed = value.reshape([self.view[axis] for axis in self.axes])
        return np.array(transposed.transpose(np.argsort(self.axes)).reshape(shape))


def plain(name: str, shape: Sequence[int]) -> Weight:
    """Return the layout by rank alone: HWIO to OIHW, HWOI to IOHW, and (in, out) to (out, in)."""
    axes = {2: (1, 0), 4: (3, 2, 0, 1)}.get(len(shape), tuple(range(len(shape))))
    return Weight(name, tuple(shape), axes, tuple(shape[axis] for axis in axes))


def depthwise(name: str, shape: Sequence[int]) -> Weight:
    """Return the layout of a depthwise kernel: HWCM, M outputs for each of C channels, to (CM, 1, H, W)."""
    height, width, channels, multiplier = shape
    return Weight(name, tuple(shape), (2, 3, 0, 1), (channels * multiplier, 1, height, width))


def moved(name: str, shape: Sequence[int], layout: Any, view: Sequence[int] | None, order: Sequence[int]) -> Weight:
    """Return the layout of a variable whose array, reshaped to ``view`` and transposed by ``order``, is a kernel.

    ``layout`` is the function of this module for the kernel; its view must be the kernel's shape.
    """
    source = tuple(view or shape)
    kernel = layout(name, [source[axis] for axis in order])
    return Weight(name, source, tuple(order[axis] for axis in kernel.axes), kernel.shape)


def pointwise(name: str, shape: Sequence[int]) -> Weight:
    """Return the layout of a matrix that is applied to each pixel: (in, out) to (out, in, 1, 1)."""
    return Weight(name, tuple(shape), (1, 0), (shape[1], shape[0], 1, 1))


def dense(
    name: str,
    shape: Sequence[int],
    image_in: Shape | None,
    image_out: Shape | None,
    view: Sequence[int] | None = None,
    transposed: bool = False,
) -> Weight:
    """Return the layout of a dense layer: (in, out) to (out, in); features of a flattened image (H, W, C) to C, H, W.

    The variable is reshaped to ``view`` first; that is (out, in) if ``transposed``.
    """
    inputs, outputs = list(view or shape)[:: -1 if transposed else 1]
    sides = [image_in or (inputs,), image_out or (outputs,)]
    first, last = (_channels_first(len(side)) for side in sides)
    if transposed:
        axes = (*last, *(axis + len(sides[1]) for axis in first))
        return Weight(name, (*sides[1], *sides[0]), axes, (outputs, inputs))
    axes = (*(axis + len(sides[0]) for axis in last), *first)
    return Weight(name, (*sides[0], *sides[1]), axes, (outputs, inputs))


def vector(name: str, shape: Sequence[int], image: Shape | None = None) -> Weight:
    """Return the layout of a vector: unchanged, but a flattened image (H, W, C) to C, H, W."""
    view = image or tuple(shape)
    return Weight(name, view, _channels_first(len(view)), tuple(shape))


def flat(name: str, shape: Sequence[int]) -> Weight:
    """Return the layout of one number for each channel in an array of any rank: a vector."""
    return Weight(name, tuple(shape), tuple(range(len(shape))), (math.prod(shape),))


def _channels_first(rank: int) -> Shape:
    return (2, 0, 1) if rank == 3 else tuple(range(rank))


def split_name(name: str) -> tuple[str, str | None]:
    """Return a variable's layer and part: (``a.conv1``, ``weight``) for ``model/a/conv1/weights``; None for an unknown part."""
    *scope, last = name.split("/")
    while scope[:1] == [digits.GraphKeys.MODEL]:  # it occurs twice in a graph that was exported from a DIGITS network
        del scope[0]
    part = PARTS.get(re.sub(r"_\d+$", "", last).lower())
    if part is None or not scope:
        return ".".join([*scope, last]), part if not scope else None
    return ".".join(scope), part


def neutral_name(name: str) -> str:
    """Return the neutral name, ``conv1.weight`` for ``model/conv1/weights``, for any of TensorFlow's layer libraries."""
    layer, part = split_name(name)
    return f"{layer}.{part}" if part else layer
