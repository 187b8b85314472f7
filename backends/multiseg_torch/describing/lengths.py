"""Sizes of the network's values, which say whose they are while it is traced.

A slice that ends at the size of another value is a Crop: unlike a Slice, it changes with the size of the image. So is one from
19 to 19 + size, as in the fully convolutional networks, whose images are padded; but where it begins may be calculated from
sizes, too, as a centre is: tracing finds out with images of another size. Any other number that is calculated from sizes is a
number, and so is a slice to it.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

GETTERS = (Tensor.shape.__get__, Tensor.size)


class Length(int):
    """The size of ``tensor`` along ``axis``, and the number that was ``added`` to it; None for the size itself."""

    tensor: Tensor
    axis: int
    added: Optional[int] = None  # noqa: UP045 - worker code runs on Python 3.9

    def __add__(self, other: Any) -> Any:
        """Return the sum, which is still a length if the other is a number."""
        total = int(self) + other
        if type(other) is not int:
            return total
        length = _length(self.tensor, total, self.axis)
        length.added = (self.added or 0) + other
        return length

    __radd__ = __add__


class Reference(NamedTuple):
    """What a slice crops to: the size of ``like``, at ``offset``; ``calculated`` if that may depend on the size of the image."""

    like: Tensor
    offset: tuple[int, int]
    calculated: bool


def of_sizes(sizes: Any, tensor: Tensor, dim: int | None = None) -> Any:
    """Return ``sizes``, which ``tensor.shape``, ``tensor.size()`` or ``tensor.size(dim)`` has returned, as lengths."""
    if dim is not None:
        return _length(tensor, sizes, dim % tensor.ndim)
    return torch.Size([_length(tensor, size, axis) for axis, size in enumerate(sizes)])


def _length(tensor: Tensor, size: int, axis: int) -> Length:
    length = Length(size)
    length.tensor, length.axis = tensor, axis
    return length


def of_other_size(image: Tensor) -> Tensor:
    """Return an image of another size: zeros are added up to one row more, and one column less, than multiples of 64.

    There, poolings add or leave out as many rows or columns as they can at strides of up to 64.
    """
    height, width = image.shape[2:]
    return torch.nn.functional.pad(
        image, (0, (width // 64 + 2) * 64 - 1 - width, 0, (height // 64 + 1) * 64 + 1 - height)
    )


def reference(image: Tensor, index: Any) -> Optional[Reference]:  # noqa: UP045
    """Return what image[:, :, top:top + height, left:left + width] crops to; None for another index."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if parts[0] is Ellipsis:
        parts[:1] = [slice(None)] * (image.ndim - len(parts) + 1)
    if not image.ndim == len(parts) == 4 or not all(isinstance(part, slice) for part in parts):
        return None
    ends, starts = [part.stop for part in parts[2:]], [part.start or 0 for part in parts[2:]]
    whole = all(part == slice(None) for part in parts[:2]) and all(part.step in (None, 1) for part in parts[2:])
    if not whole or [type(end) for end in ends] != [Length, Length] or [end.axis for end in ends] != [2, 3]:
        return None
    if [end.added or 0 for end in ends] != starts or min(starts) < 0:
        return None
    like: Tensor = ends[0].tensor
    fits = like.ndim == 4 and ends[0] <= image.shape[2] and ends[1] <= image.shape[3]
    if like is not ends[1].tensor or like is image or not fits:
        return None
    top, left = map(int, starts)
    return Reference(like, (top, left), any(end.added is not None for end in ends))
