"""Embed arrays as pictures in a page: PNG data URIs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from multiseg.images import picture_of, to_image
from multiseg.images.arrays import JPEG_QUALITY

Array = npt.NDArray[Any]
Range = tuple[float, float]

BYTES = (0, 255)  # the range of 8-bit images

# colours where the output is darker than the target (false object), equal to it, or lighter (missed object)
DARKER, EQUAL, LIGHTER = (176, 112, 0), (247, 247, 245), (112, 40, 140)


def picture(values: Array, side: int | None = None, scale: Range = BYTES) -> str:
    """Return CHW values, clipped to the range ``scale``, as a PNG; reduced if a side is longer than ``side``."""
    return _data_uri(reduced(to_image(_scaled(values, scale)), side))


def image(values: Array, side: int | None = None) -> str:
    """Return an image CHW as a PNG, values other than uint8 scaled by their range; reduced if a side is longer than ``side``."""
    return _data_uri(reduced(picture_of(values), side))


def photo(values: Array, side: int | None = None) -> str:
    """Return an image CHW like :func:`image`, as a JPEG where that is smaller."""
    return smallest(picture_of(values), side)


def smallest(image: Image.Image, side: int | None = None) -> str:
    """Return a grey or RGB picture as a PNG, or as a JPEG where that is smaller; reduced if a side is longer than ``side``."""
    return min((_data_uri(reduced(image, side), kind) for kind in ("PNG", "JPEG")), key=len)


def class_map(classes: Array, side: int | None = None) -> str:
    """Return class indices HW as a grey PNG whose values are the classes; with fewer pixels if a side is longer than ``side``."""
    picture = Image.fromarray(np.ascontiguousarray(classes, np.uint8))
    return _data_uri(picture if side is None else picture.resize(_size(picture, side), Image.Resampling.NEAREST))


def embedded(picture: Image.Image) -> str:
    """Return a picture as a PNG."""
    return _data_uri(picture)


def error_map(output: Array, target: Array, side: int | None = None, scale: Range = BYTES) -> str:
    """Return output minus target, both CHW, averaged over channels, on a diverging colour scale.

    The output is clipped to the range ``scale``, and the colour scale ends at a difference of all of it.
    """
    difference = (np.clip(_scaled(output, scale), 0, 255) - _scaled(target, scale)).mean(axis=0)
    return coloured(difference, _DIVERGING, side)


def range_of(values: Array) -> Range:
    """Return the range by which images are drawn: 0 to 255 for uint8, otherwise that of their values."""
    if values.dtype == np.uint8:
        return BYTES
    low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1


def _scaled(values: Array, scale: Range) -> Array:
    if scale == BYTES:
        return values.astype(np.float32)
    low, high = scale
    return ((values.astype(np.float64) - low) * (255 / (high - low))).astype(np.float32)


def split_map(minority: Array, side: int | None = None) -> str:
    """Return the map of where runs disagree (HW, 0..255), on the colour scale of an error map."""
    return coloured(minority, _DIVERGING, side)


def signed(values: Array) -> str:
    """Return HW values on a diverging colour scale that ends at the largest absolute value; NaN is transparent."""
    finite = np.isfinite(values)
    largest = float(np.abs(values[finite]).max()) if finite.any() else 0.0
    scaled = np.where(finite, values, 0) * (1 / largest if largest else 1.0)
    index = np.rint((scaled + 1) * 127.5).astype(np.uint8)
    colours = np.frombuffer(_DIVERGING, np.uint8).reshape(256, 3)[index]
    return _data_uri(Image.fromarray(np.dstack([colours, np.where(finite, 255, 0).astype(np.uint8)])))


def coloured(values: Array, palette: bytes, side: int | None = None) -> str:
    """Return HW values of -255..255 in a palette of 256 colours."""
    index = np.rint((np.clip(values.astype(np.float32), -255, 255) + 255) / 2).astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette(palette)
    if side is not None and max(image.size) > side:  # colours can be averaged, palette indices cannot
        return _data_uri(reduced(image.convert("RGB"), side))
    return _data_uri(image)


def reduced(image: Image.Image, side: int | None) -> Image.Image:
    """Return a picture with fewer pixels if a side is longer than ``side``; None keeps it."""
    if side is None or max(image.size) <= side:
        return image
    return image.resize(_size(image, side), Image.Resampling.BOX)


def _size(image: Image.Image, side: int) -> tuple[int, int]:
    """Return width and height, reduced if one is larger than ``side``."""
    scale = min(1, side / max(image.size))
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _data_uri(image: Image.Image, kind: str = "PNG") -> str:
    buffer = io.BytesIO()
    # of PNG, zlib's level 9 would take 3.6 times as long for real photographs, and 2 % less space than level 6
    # (`FOLDER=PHOTOGRAPHS python benchmarks/dataset.py png`)
    options = {"optimize": True, "quality": JPEG_QUALITY} if kind == "JPEG" else {}
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _diverging() -> bytes:
    at = np.linspace(0, 1, 128)[:, None]
    darker = np.array(DARKER) * (1 - at) + np.array(EQUAL) * at
    lighter = np.array(EQUAL) * (1 - at) + np.array(LIGHTER) * at
    return bytes(np.rint(np.concatenate([darker, lighter])).astype(np.uint8))


_DIVERGING = _diverging()
