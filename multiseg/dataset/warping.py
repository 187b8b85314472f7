"""Affine maps and scaling of images by Pillow, so that pixels are interpolated once."""

from __future__ import annotations

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
    _, height, width = image.shape
    half = np.array([width, height], np.float64) / 2
    corners = np.array([[x, y] for x in (0, size[1]) for y in (0, size[0])], np.float64) - centre
    places = corners @ linear.T + shift + half
    first, part = _part(image, places, AROUND)
    if fill is None:
        first, part = _continued(part, first, places)
    offset = shift + half - first - linear @ centre
    coefficients = (*linear[0], offset[0], *linear[1], offset[1])
    planes = [
        Image.fromarray(plane).transform(
            size[::-1],
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
    end = np.minimum(np.add(corner, size), scaled)
    ratio = np.array(image.shape[1:], np.float64) / scaled
    top_left, bottom_right = np.multiply(corner, ratio), np.minimum(end * ratio, image.shape[1:])
    around = np.ceil(np.maximum(ratio, 1)).astype(int) + 1  # pixels that are averaged, and one for rounding
    first, image = _part(image, np.array([top_left, bottom_right])[:, ::-1], around[::-1])
    box = (*(top_left[::-1] - first), *np.minimum(bottom_right[::-1] - first, image.shape[:0:-1]))
    height, width = end - corner
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR, box) for plane in image]
    return _stacked(planes, image)


def _stacked(planes: Sequence[Image.Image], like: Array) -> Array:
    return np.stack([np.asarray(plane, dtype=like.dtype) for plane in planes])


def _part(image: Array, places: Floats, around: Any) -> tuple[NDArray[np.int64], Array]:
    """Return the part of an image between ``places`` (x, y) and ``around`` pixels further, after its first pixel (x, y).

    Pillow copies all that it is given.
    """
    size = image.shape[:0:-1]
    first = np.clip(np.floor(places.min(axis=0)).astype(int) - around, 0, np.subtract(size, 1))
    end = np.maximum(np.ceil(places.max(axis=0)).astype(int) + around, first + 1)
    return first, image[:, first[1] : end[1], first[0] : end[0]]


def _continued(part: Array, first: NDArray[np.int64], places: Floats) -> tuple[NDArray[np.int64], Array]:
    """Return a part of an image, whose first pixel (x, y) is given, with its border pixels repeated to all ``places`` (x, y)."""
    end = first + part.shape[:0:-1]
    before = np.maximum(first - np.floor(places.min(axis=0)).astype(int) + AROUND, 0)
    after = np.maximum(np.ceil(places.max(axis=0)).astype(int) + AROUND - end, 0)
    if not (before.any() or after.any()):
        return first, part
    around = tuple(zip(before[::-1].tolist(), after[::-1].tolist(), strict=True))
    return first - before, np.pad(part, ((0, 0), *around), mode="edge")
