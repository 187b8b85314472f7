"""Read the values of images with more than 8 bits per channel, and of NumPy arrays, without loss.

Pillow reads 16-bit colour by its high bytes only. Its raw modes for the two byte orders select the even or the odd bytes of
a sample, so that decoding a file once with each returns both bytes, whatever its compression.
"""

from __future__ import annotations

import io
import re
import struct
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from multiseg.errors import ImageError
from multiseg.images.opening import SAMPLE_FORMAT, SIGNED, open_header, tag
from multiseg.layout import to_channels_first

Values = NDArray[Any]

NPY = b"\x93NUMPY"
_EXACT = 1 << 24  # float32 represents all whole numbers up to this one
_WHITE = 65535  # of 16 bits
_PNM_HEADER = re.compile(rb"P[2356]" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s")


def array_values(data: bytes, name: str) -> Values:
    """Return the array of a .npy file as ``(C, H, W)``: uint8, or float32 for other types.

    The file has the shape (H, W), (C, H, W), or (H, W, C) with one or three channels. Raises ImageError naming the file for
    another shape or type, and see :func:`as_float`.
    """
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # NumPy's reader raises nearly anything on damaged files, MemoryError for a huge shape
        raise ImageError(f"{name}: is not an array that can be read ({error}); save it with numpy.save") from error
    if array.ndim == 2:
        array = array[np.newaxis]
    elif array.ndim == 3 and array.shape[0] not in (1, 3) and array.shape[2] in (1, 3):
        array = to_channels_first(array)
    if array.ndim != 3 or 0 in array.shape:
        raise ImageError(f"{name}: has the shape {array.shape}; an image is (H, W), (C, H, W) or (H, W, C)")
    if array.dtype.kind not in "uif":
        raise ImageError(f"{name}: has values of the type {array.dtype}; save whole or floating-point numbers")
    return np.ascontiguousarray(array if array.dtype == np.uint8 else as_float(array, name))


def deep_values(image: ImageFile.ImageFile, data: bytes, name: str, over_white: bool) -> tuple[Values, bool]:
    """Return the values ``(C, H, W)`` float32 of an image with more than 8 bits per channel, and whether it is transparent.

    ``image`` is the opened and loaded file with the content ``data``. With ``over_white`` transparent pixels are laid over white,
    which is 65535; without it their values are as stored. Raises ImageError, see :func:`as_float`.
    """
    values, alpha = _samples(image, data, name)
    key = image.info.get("transparency")
    if alpha is None and isinstance(key, (int, tuple)):  # one value or colour of a PNG file is transparent
        alpha = np.where((values == np.array(key)).all(axis=2, keepdims=True), 0, _WHITE)
    transparent = alpha is not None and bool((alpha < _WHITE).any())
    if transparent and over_white and alpha is not None:
        opacity = alpha / _WHITE
        values = np.rint(values * opacity + _WHITE * (1 - opacity))
    return np.ascontiguousarray(to_channels_first(as_float(values, name))), transparent


def as_float(values: Values, name: str) -> NDArray[np.float32]:
    """Return values as float32. Raises ImageError naming the file for whole numbers beyond 2**24, NaN and infinity."""
    if values.dtype.kind in "ui" and values.size and max(abs(int(values.min())), abs(int(values.max()))) > _EXACT:
        raise ImageError(f"{name}: has whole numbers beyond 2**24, which float32 cannot keep; scale them down")
    with np.errstate(over="ignore"):  # reported below
        result = values.astype(np.float32)
    if not np.isfinite(result).all():
        raise ImageError(f"{name}: has values that are NaN or infinite; replace them by numbers")
    return result


def _samples(image: ImageFile.ImageFile, data: bytes, name: str) -> tuple[Values, Values | None]:
    """Return the values (H, W, C) of one or three channels, and the opacity (H, W, 1) of 0 to 65535 or None."""
    if image.format == "PPM" and image.mode != "F":
        return pnm_values(data, name), None
    if image.mode in ("RGB", "RGBA", "LA"):
        samples = _png(image, data) if image.format == "PNG" else _tiff(data, name)
        return (samples[..., :-1], samples[..., -1:]) if image.mode[-1] == "A" else (samples, None)
    if image.mode not in ("F", "L") and image.mode[0] != "I":
        raise ImageError(f"{name}: is of a kind that cannot be read (mode {image.mode}); save it as grey or RGB")
    samples = np.asarray(image)
    if image.format == "TIFF":
        signed = tag(image, SAMPLE_FORMAT) == SIGNED
        if image.mode == "I" and not signed and samples.dtype == np.int32:
            samples = samples.view(np.uint32)
        elif image.mode == "L" and signed:
            samples = samples.view(np.int8)
    return samples[..., np.newaxis], None


def _png(image: ImageFile.ImageFile, data: bytes) -> Values:
    """Return the samples (H, W, C) uint16 of a 16-bit PNG file, whose content has been checked by loading it."""
    packed, position, interlaced = [], 8, data[28]
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IDAT":
            packed.append(data[position + 8 : position + 8 + length])
        position += length + 12
    pixels = b"".join(packed)
    colour_type = data[25]
    if colour_type == 4:  # two channels of two bytes, which are the bytes of one RGBA pixel
        raw = np.asarray(Image.frombytes("RGBA", image.size, pixels, "zip", "RGBA", interlaced)).astype(np.uint16)
        return raw[..., 0::2] << 8 | raw[..., 1::2]
    mode = "RGBA" if colour_type == 6 else "RGB"
    high, low = (
        np.asarray(Image.frombytes(mode, image.size, pixels, "zip", f"{mode};16{order}", interlaced)).astype(np.uint16)
        for order in "BL"
    )
    return high << 8 | low


def _tiff(data: bytes, name: str) -> Values:
    """Return the samples (H, W, C) uint16 of a TIFF file."""
    planes = []
    for other_byte in (False, True):
        again = open_header(data)
        tiles: list[Any] = []
        for tile in again.tile:
            raw_mode, *others = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
            mode, _, order = str(raw_mode).partition(";16")
            if mode not in ("RGB", "RGBA", "RGBX") or order not in ("L", "B", "N"):
                raise ImageError(
                    f"{name}: is a TIFF of a kind that cannot be read without loss ({raw_mode}); save it as PNG"
                )
            little = order == "L" or (order == "N" and sys.byteorder == "little")
            args = (f"{mode};16{'LB'[little == other_byte]}", *others)
            # a named tuple since Pillow 11
            tiles.append(tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args))
        again.tile = tiles
        planes.append(np.asarray(again).astype(np.uint16))
    return planes[0] << 8 | planes[1]


def pnm_values(data: bytes, name: str) -> Values:
    """Return the samples (H, W, C) of a PGM or PPM file as they are stored, not scaled to the largest value of its header.

    Raises ImageError naming the file if it is damaged.
    """
    header = _PNM_HEADER.match(data)
    if header is None:
        raise ImageError(f"{name}: is damaged or truncated; replace it or leave it out")
    width, height, largest = (int(number) for number in header.groups())
    channels = 3 if data[1:2] in b"36" else 1
    try:
        if data[1:2] in b"56":
            sample = ">u2" if largest > 255 else "u1"
            values: Values = np.frombuffer(data, sample, width * height * channels, header.end())
        else:
            values = np.array(data[header.end() :].split(), np.int64)
        return values.reshape(height, width, channels)
    except (ValueError, OverflowError) as error:
        raise ImageError(f"{name}: is damaged or truncated ({error}); replace it or leave it out") from error
