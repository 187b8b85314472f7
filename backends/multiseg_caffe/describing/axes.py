"""Shapes of blobs, and Caffe's numbering of their axes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from multiseg_caffe.describing.windows import WrongLayer

Shape = tuple[int, ...]
Inferred = tuple[list[Shape], list[Shape]]  # shapes of a layer's tops, and of its weights
Step = tuple[str, dict[str, Any]]  # type and parameters of a layer in neutral terms


def concat_axis(layer: Any, bottom: Shape) -> int:
    """Return the axis of a Concat or Slice, from the field ``axis`` or its older name. Raises WrongLayer if both are set."""
    p, old = (layer.concat_param, "concat_dim") if layer.type == "Concat" else (layer.slice_param, "slice_dim")
    if p.HasField(old) and p.HasField("axis"):
        raise WrongLayer(f"has both axis and {old}; Caffe accepts only one of them")
    return axis(getattr(p, old) if p.HasField(old) else p.axis, bottom)


def axis(index: int, shape: Shape) -> int:
    """Return an axis counted from 0; negative indices count from the last. Raises WrongLayer if the shape lacks the axis."""
    position = index if index >= 0 else index + len(shape)
    if not 0 <= position < len(shape):
        raise WrongLayer(f"has no axis {index} in its input {shape}")
    return position


def image(shape: Shape) -> Shape:
    """Return the shape. Raises WrongLayer if it is not 4-D, (N, C, H, W)."""
    if len(shape) != 4:
        raise WrongLayer(f"needs images (N, C, H, W), but its input is {shape}")
    return shape


def listed(shapes: Iterable[Shape | None]) -> str:
    """Return shapes as text for messages."""
    return " and ".join(map(str, shapes)) or "no input"
