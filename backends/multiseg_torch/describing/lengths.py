"""Sizes of the network's values, which say whose they are while it is traced.

A slice that ends at the size of another value is a Crop: unlike a Slice, it changes with the size of the image. A number that is
calculated from sizes is a number as any other, and so is a slice to it.
"""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

GETTERS = (Tensor.shape.__get__, Tensor.size)
Reference = Optional[Tensor]  # noqa: UP045 - worker code runs on Python 3.9


class Length(int):
    """The size of ``tensor`` along ``axis``."""

    tensor: Tensor
    axis: int


def of_sizes(sizes: Any, tensor: Tensor, dim: int | None = None) -> Any:
    """Return ``sizes``, which ``tensor.shape``, ``tensor.size()`` or ``tensor.size(dim)`` has returned, as lengths."""
    if dim is not None:
        return _length(tensor, sizes, dim % tensor.ndim)
    return torch.Size([_length(tensor, size, axis) for axis, size in enumerate(sizes)])


def _length(tensor: Tensor, size: int, axis: int) -> Length:
    length = Length(size)
    length.tensor, length.axis = tensor, axis
    return length


def reference(image: Tensor, index: Any) -> Reference:
    """Return the tensor to whose height and width image[:, :, :height, :width] crops; None for another index."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if parts[0] is Ellipsis:
        parts[:1] = [slice(None)] * (image.ndim - len(parts) + 1)
    if not image.ndim == len(parts) == 4 or not all(isinstance(part, slice) for part in parts):
        return None
    ends = [part.stop for part in parts[2:] if part.start in (None, 0) and part.step in (None, 1)]
    whole = all(part == slice(None) for part in parts[:2])
    if not whole or [type(end) for end in ends] != [Length, Length] or [end.axis for end in ends] != [2, 3]:
        return None
    like: Tensor = ends[0].tensor
    fits = like.ndim == 4 and like.shape[2] <= image.shape[2] and like.shape[3] <= image.shape[3]
    return like if like is ends[1].tensor and like is not image and fits else None
