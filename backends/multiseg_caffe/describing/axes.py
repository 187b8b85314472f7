"""Shapes of blobs and Caffe's numbering of their axes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from multiseg_caffe.describing.windows import WrongLayer

Shape = tuple[int, ...]
Made = tuple[list[Shape], list[Shape]]  # shapes of tops, of weights


def concat_axis(layer: Any, bottom: Shape) -> int:
    """The axis along which a Concat or Slice works, by either of its names."""
    p, old = (layer.concat_param, "concat_dim") if layer.type == "Concat" else (layer.slice_param, "slice_dim")
    if p.HasField(old) and p.HasField("axis"):
        raise WrongLayer(f"has both axis and {old}; Caffe takes one of them")
    return axis(getattr(p, old) if p.HasField(old) else p.axis, bottom)


def axis(index: int, shape: Shape) -> int:
    """An axis counted from 0. Raises WrongLayer where the shape has none such."""
    found = index if index >= 0 else index + len(shape)
    if not 0 <= found < len(shape):
        raise WrongLayer(f"has no axis {index} in its input {shape}")
    return found


def image(shape: Shape) -> Shape:
    """The same shape. Raises WrongLayer where it is not (N, C, H, W)."""
    if len(shape) != 4:
        raise WrongLayer(f"takes images (N, C, H, W), its input is {shape}")
    return shape


def listed(shapes: Iterable[Shape | None]) -> str:
    """Shapes, for messages."""
    return " and ".join(map(str, shapes)) or "no input"
