"""Changes of brightness, contrast and saturation, with the formulas of Pillow's ImageEnhance and torchvision's ColorJitter.

All are interpolations (factor below 1) or extrapolations (above 1) between the image and a degenerate one: black, the image's
mean grey, and its greyscale version. Images are float64, (C, H, W), RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601-2, of red, green, blue


def change_colours(image: NDArray[Any], factors: Sequence[float]) -> NDArray[Any]:
    """Return an image (C, H, W) with brightness, contrast and saturation changed by ``factors``, in this order; dtype is kept.

    8-bit values are clipped to 0 to 255 after each change, and rounded at the end. The range of other values is that of the image
    itself: its smallest value is black, and nothing is clipped. A factor of 1 changes nothing.
    """
    eight_bit = image.dtype == np.uint8
    values = image.astype(np.float64)
    black = 0.0 if eight_bit else float(values.min())
    degenerates: tuple[Callable[[Floats], Floats | float], ...] = (lambda _: black, _mean_grey, _grey)
    for factor, degenerate in zip(factors, degenerates, strict=True):
        if factor != 1:
            base = degenerate(values)
            values = base + factor * (values - base)
            if eight_bit:
                values = values.clip(0, 255)
    return np.rint(values).astype(np.uint8) if eight_bit else values.astype(image.dtype)


def _grey(image: Floats) -> Floats:
    """Return the greyscale version (1, H, W) of three colours; other images have no colours and are returned as they are."""
    return np.tensordot(LUMA, image, 1)[None] if len(image) == 3 else image


def _mean_grey(image: Floats) -> float:
    return float(_grey(image).mean())
