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
    pad = 0
    if fill is None:
        corners = np.array([[x, y] for x in (0, size[1]) for y in (0, size[0])], np.float64) - centre
        reach = np.abs(corners @ linear.T + shift).max(axis=0) - half
        pad = math.ceil(max(0.0, float(reach.max()))) + 1
        image = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    offset = shift + half + pad - linear @ centre
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
