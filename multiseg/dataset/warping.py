"""Affine maps and scaling of images by Pillow, so that pixels are interpolated once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Floats = NDArray[np.float64]

# pixels that bilinear interpolation may read beyond the places of an image's outer pixels, and one for rounding
AROUND = 2


def warped(
    image: Array,
    linear: Floats,
    shift: Floats,
    size: tuple[int, int],
    centre: Floats,
    resampling: Image.Resampling,
    fill: Sequence[float] | None,
) -> Array:
    """Return the image of ``size`` (height, width) that an affine map takes from an image (C, H, W).

    The pixel whose middle is at p (x, y) in the result is read at ``linear @ (p - centre) + shift`` relative to the middle of
    ``image``. Outside of the image it is ``fill``, a value for each channel, or the nearest border pixel if that is None.
    """
    (height, width), (x, y) = size, centre.tolist()
    coefficients, cuts, border = [], [], []
    for (across, down), moved, length in zip(linear.tolist(), shift.tolist(), image.shape[:0:-1], strict=True):
        origin = across * x + down * y
        low = moved + length / 2 - origin + min(across * width, 0) + min(down * height, 0)
        high = moved + length / 2 - origin + max(across * width, 0) + max(down * height, 0)
        first, end = _read(low, high, AROUND, length)
        before = max(first - math.floor(low) + AROUND, 0) if fill is None else 0
        after = max(math.ceil(high) + AROUND - end, 0) if fill is None else 0
        coefficients += [across, down, moved + length / 2 - (first - before) - origin]
        cuts.append(slice(first, end))
        border.append((before, after))
    part = image[:, cuts[1], cuts[0]]
    if any(map(any, border)):
        part = np.pad(part, ((0, 0), *border[::-1]), mode="edge")
    planes = [
        Image.fromarray(plane).transform(
            (width, height),
            Image.Transform.AFFINE,
            coefficients,
            resampling,
            fillcolor=None if fill is None else fill[channel],
        )
        for channel, plane in enumerate(part)
    ]
    return _stacked(planes, image)


def scaled_part(image: Array, scaled: tuple[int, int], corner: tuple[int, int], size: tuple[int, int]) -> Array:
    """Return the part of at most ``size`` (height, width) from ``corner`` of an image (C, H, W) that is resized to ``scaled``.

    Interpolation is bilinear, over more pixels where the image becomes smaller, as in Pillow and torchvision.
    """
    cuts, box, sides = [], [], []
    for length, whole, start, most in zip(image.shape[1:], scaled, corner, size, strict=True):
        side, ratio = min(most, whole - start), length / whole
        low, high = start * ratio, min((start + side) * ratio, length)
        # what is averaged, and one for rounding
        first, end = _read(low, high, math.ceil(max(ratio, 1)) + 1, length)
        cuts.append(slice(first, end))
        box.append((low - first, min(high - first, end - first)))
        sides.append(side)
    (top, bottom), (left, right) = box
    planes = [
        Image.fromarray(plane).resize(sides[::-1], Image.Resampling.BILINEAR, (left, top, right, bottom))
        for plane in image[:, cuts[0], cuts[1]]
    ]
    return _stacked(planes, image)


def _stacked(planes: Sequence[Image.Image], like: Array) -> Array:
    return np.stack([np.asarray(plane, dtype=like.dtype) for plane in planes])


def _read(low: float, high: float, around: int, length: int) -> tuple[int, int]:
    """Return the first pixel, and the one after the last, of a side that are read between two places, ``around`` pixels further.

    Pillow copies all that it is given. At least one pixel of the side is read.
    """
    first = min(max(math.floor(low) - around, 0), length - 1)
    return first, min(max(math.ceil(high) + around, first + 1), length)
