"""Affine maps of images by Pillow, so that pixels are interpolated once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Floats = NDArray[np.float64]

AROUND = (
    2  # pixels that bilinear interpolation may read beyond the places of an image's outer pixels, and one for rounding
)


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
    places = corners @ linear.T + shift
    if fill is None:
        pad = math.ceil(max(0.0, float((np.abs(places).max(axis=0) - half).max()))) + 1
        image = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
        first = np.array([-pad, -pad])
    else:  # Pillow copies all that it is given
        first, image = _part(image, places + half)
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
        for channel, plane in enumerate(image)
    ]
    return np.stack([np.asarray(plane, dtype=image.dtype) for plane in planes])


def _part(image: Array, places: Floats) -> tuple[NDArray[np.int64], Array]:
    """Return the part of an image between ``places`` (x, y), with the pixels around it, and its first pixel (x, y)."""
    size = image.shape[:0:-1]
    first = np.clip(np.floor(places.min(axis=0)).astype(int) - AROUND, 0, np.subtract(size, 1))
    end = np.maximum(np.ceil(places.max(axis=0)).astype(int) + AROUND, first + 1)
    return first, image[:, first[1] : end[1], first[0] : end[0]]
