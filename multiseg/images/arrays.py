"""Convert arrays (C, H, W) to pictures and encoded images, and back."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multiseg.errors import ImageError, SettingsError
from multiseg.files import write_bytes
from multiseg.layout import to_channels_first, to_channels_last

Pixels = NDArray[np.uint8]
Encoding = Literal["png", "jpg"]
PixelConversion = Literal["clip", "normalize"]

JPEG_QUALITY = 90  # as in DIGITS
# of zlib: compared with its default, 6, real photographs (CamVid) take 0.4 of the time and as much space, drawn ones 0.64 of the
# time and 13 % more (`FOLDER=PHOTOGRAPHS python benchmarks/dataset.py png`, and without FOLDER)
PNG_LEVEL = 3


def image_to_array(image: Image.Image) -> Pixels:
    """Convert a Pillow image of mode L or RGB to ``(C, H, W)`` uint8."""
    array = np.asarray(image)
    if array.ndim == 2:
        return array[np.newaxis]
    return np.ascontiguousarray(to_channels_first(array))


def array_to_image(array: Pixels) -> Image.Image:
    """Convert ``(C, H, W)`` uint8 of one or three channels to a Pillow image of mode L or RGB."""
    if array.ndim != 3 or array.shape[0] not in (1, 3):
        raise ImageError(f"an image has one or three channels; this array has the shape {array.shape}")
    if array.shape[0] == 1:
        return Image.fromarray(np.ascontiguousarray(array[0]))
    return Image.fromarray(np.ascontiguousarray(to_channels_last(array)))


def picture_of(values: NDArray[Any]) -> Image.Image:
    """Return an image ``(C, H, W)`` as a picture: uint8 as it is, other types scaled so that their range becomes 0 to 255.

    Other numbers of channels than one and three are averaged.
    """
    if values.dtype == np.uint8 and values.shape[0] in (1, 3):
        return array_to_image(values)
    shown = values if values.shape[0] in (1, 3) else values.mean(axis=0, keepdims=True)
    return to_image(shown, "clip" if values.dtype == np.uint8 else "normalize")


def encode_image(array: Pixels, encoding: Encoding) -> bytes:
    """Encode ``(C, H, W)`` uint8 as the bytes of a PNG or JPEG (quality 90) file."""
    buffer = io.BytesIO()
    if encoding == "png":
        array_to_image(array).save(buffer, "PNG", compress_level=PNG_LEVEL)
    else:
        array_to_image(array).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def format_of(path: str | os.PathLike[str]) -> str:
    """Return Pillow's name of the format of a file name extension. Raise ImageError if Pillow writes no such files."""
    suffix = Path(path).suffix
    name = Image.registered_extensions().get(suffix.lower())
    if name not in Image.SAVE:
        raise ImageError(f"{os.fspath(path)}: cannot be written: {suffix!r} is no kind of picture; name it .png")
    return name


def encoded(image: Image.Image, path: str | os.PathLike[str]) -> bytes:
    """Encode an image in the format of a file name extension. Raise ImageError, naming the file, if that fails."""
    name, buffer = format_of(path), io.BytesIO()
    try:
        image.save(buffer, name, **{"compress_level": PNG_LEVEL} if name == "PNG" else {})
    except (OSError, ValueError) as error:  # of formats that do not have the image's number of channels
        raise ImageError(f"{os.fspath(path)}: cannot be written: {error}; name it .png") from error
    return buffer.getvalue()


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Save an image in the format of its file name extension. Raise ImageError if that fails."""
    content = encoded(image, path)
    try:
        write_bytes(Path(path), content, durable=False)
    except SettingsError as error:
        raise ImageError(error) from error
    except OSError as error:
        raise ImageError(f"{os.fspath(path)}: cannot be written: {error.strerror or error}") from error
    return Path(path)


def to_image(array: NDArray[Any], pixel_conversion: PixelConversion = "clip") -> Image.Image:
    """Convert a network's output ``(C, H, W)`` to a picture, like DIGITS' "Pixel Conversion".

    "clip" clips values to 0..255; "normalize" maps the smallest value to 0 and the largest to 255.
    Values are rounded; NaN becomes 0. Raises ImageError unless C is 1 or 3.
    """
    values = np.nan_to_num(np.asarray(array, dtype=np.float32), nan=0.0, posinf=np.inf, neginf=-np.inf)
    if pixel_conversion == "normalize":
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        scaled = (np.clip(values.astype(np.float64), low, high) - low) * (255.0 / (high - low) if high > low else 0.0)
    elif pixel_conversion == "clip":
        scaled = values.astype(np.float64)
    else:
        raise SettingsError(f"pixel conversion {pixel_conversion!r} is unknown; it is clip or normalize")
    return array_to_image(np.rint(np.clip(scaled, 0, 255)).astype(np.uint8))
