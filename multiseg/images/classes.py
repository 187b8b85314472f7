"""Pictures of class indices: palette images, overlays and outlines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multiseg.images.arrays import Pixels

Colours = Sequence[tuple[int, int, int]]


def class_image(classes: Pixels, colours: Colours) -> Image.Image:
    """Return class indices (H, W) as a palette image (mode P): its values are the indices, its palette the ``colours``."""
    image = Image.fromarray(np.ascontiguousarray(classes))
    image.putpalette(bytes(part for colour in colours for part in colour))
    return image


def overlay_image(
    picture: Image.Image,
    classes: Pixels,
    colours: Colours,
    opacity: float = 0.5,
    outline: int = 0,
    transparent: int | None = None,
) -> Image.Image:
    """Return a picture (RGB) with the colours of the classes (H, W) laid over it.

    The picture is resized to the size of ``classes`` if it differs. ``outline`` is the width in pixels of an opaque border within
    each region of a class. The class ``transparent`` has neither colour nor border.
    """
    height, width = classes.shape
    base = picture.convert("RGB")
    if base.size != (width, height):
        base = base.resize((width, height), Image.Resampling.BILINEAR)
    alpha = np.full(classes.shape, round(255 * opacity), np.uint8)
    if outline:
        alpha[border(classes, outline)] = 255
    if transparent is not None:
        alpha[classes == transparent] = 0
    base.paste(class_image(classes, colours).convert("RGB"), mask=Image.fromarray(alpha))
    return base


def border(classes: Pixels, width: int) -> NDArray[np.bool_]:
    """Return which pixels (H, W) are at most ``width`` pixels from a pixel of another class, in rows and columns."""
    result = np.zeros(classes.shape, np.bool_)
    for distance in range(1, width + 1):
        for axis in (0, 1):
            if distance >= classes.shape[axis]:
                continue
            before = [slice(None), slice(None)]
            after = [slice(None), slice(None)]
            before[axis], after[axis] = slice(None, -distance), slice(distance, None)
            differs = classes[tuple(before)] != classes[tuple(after)]
            result[tuple(before)] |= differs
            result[tuple(after)] |= differs
    return result
