"""Convert image files and encoded images to arrays (CHW, uint8, RGB) and back."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from multiseg.errors import ImageError, SettingsError, setting
from multiseg.layout import to_channels_first, to_channels_last

Pixels = NDArray[np.uint8]
Channels = Literal["none", "L", "RGB"]
Wanted = Literal["none", "L", "RGB", "any"]
Encoding = Literal["png", "jpg"]
PixelConversion = Literal["clip", "normalize"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")
_BITS_PER_SAMPLE = 258  # tag of the TIFF specification
JPEG_QUALITY = 90  # as in DIGITS

_KINDS = {
    "1": "a 1-bit",
    "P": "a palette",
    "PA": "a palette",
    "LA": "a transparent",
    "RGBA": "a transparent",
    "CMYK": "a CMYK",
    "F": "a floating-point",
}


def load_image(path: str | os.PathLike[str], channels: Channels = "none", any_size: bool = False) -> Pixels:
    """Load an image file as ``(C, H, W)`` uint8, RGB.

    Raises ImageError if the file is missing, unreadable, or neither 8-bit grey nor 8-bit RGB while ``channels`` requests
    no conversion. See :func:`decode_image`.
    """
    return decode_image(read_bytes(path), os.fspath(path), channels, any_size)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file. Raise ImageError, which names it, if it cannot be read."""
    try:
        with io.FileIO(path) as file:  # takes half the time of Path.read_bytes, which matters for small images
            return file.readall()
    except OSError as error:
        raise ImageError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error


def decode_image(data: bytes, name: str, channels: Wanted = "none", any_size: bool = False) -> Pixels:
    """Decode an image file's bytes to ``(C, H, W)`` uint8, RGB; ``name`` is for error messages.

    ``channels`` "L" or "RGB" converts any mode: grey by ITU-R 601-2 luma (Pillow's), transparency over white (as in
    DIGITS), 16 bits by their high byte. "none" returns 8-bit grey and RGB unchanged and raises ImageError for other
    modes; "any" returns them unchanged too and converts other modes to RGB. ``any_size`` also opens images of more
    than about 180 million pixels, which Pillow refuses. EXIF orientation is ignored, as it is by DIGITS.
    """
    if channels not in get_args(Wanted):
        raise SettingsError(
            f"{setting('channels')} {channels!r} is unknown; it is one of {', '.join(get_args(Channels))}"
        )
    image = open_plain_png(data, any_size) or _open(data, name, channels, any_size)
    if channels == "any":
        image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    elif channels not in ("none", image.mode):
        image = image.convert(channels)
    return image_to_array(image)


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


def encode_image(array: Pixels, encoding: Encoding) -> bytes:
    """Encode ``(C, H, W)`` uint8 as the bytes of a PNG or JPEG (quality 90) file."""
    buffer = io.BytesIO()
    if encoding == "png":
        array_to_image(array).save(buffer, "PNG")
    else:
        array_to_image(array).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def save_image(image: Image.Image, path: str | os.PathLike[str]) -> Path:
    """Save an image in the format of its file name extension. Raise ImageError if that fails."""
    try:
        image.save(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"{os.fspath(path)}: cannot be written: {error}") from error
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


def open_plain_png(data: bytes, any_size: bool = False) -> Image.Image | None:
    """Open a PNG file's bytes if it is plain: 8-bit L or RGB, not interlaced, with nothing in it but pixels.

    None means "not plain", damaged files included; Pillow's general way then opens it or says what is wrong. Small
    plain files, the usual ones here, decode three times faster this way.
    """
    if data[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or len(data) < 57:
        return None
    width, height, depth, colour, compression, filters, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    mode = {0: "L", 2: "RGB"}.get(colour)
    limit = width * height if any_size else Image.MAX_IMAGE_PIXELS or width * height
    if (depth, compression, filters, interlace) != (8, 0, 0, 0) or mode is None or not 0 < width * height <= limit:
        return None
    packed = []
    position = 8
    while True:
        if position + 12 > len(data):
            return None
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return None
        if kind == b"IDAT":
            packed.append(data[position + 8 : end])
        elif kind == b"IEND":
            break
        elif position > 8:
            return None
        position = end + 4
    try:
        return Image.frombytes(mode, (width, height), b"".join(packed), "zip", mode, 0)
    except (ValueError, OSError):
        return None


def open_image(data: bytes, name: str, any_size: bool = False) -> tuple[ImageFile.ImageFile, bool]:
    """Return an image file's content in Pillow's mode, and whether it has 16 bits per channel.

    Raises ImageError, which names the file, if it is empty, damaged, too large, of an unsupported format, or has several images.
    """
    if not data:
        raise ImageError(f"{name}: is empty; replace it or leave it out")
    try:
        opened = _open_any_size(io.BytesIO(data)) if any_size else Image.open(io.BytesIO(data), formats=FORMATS)
        frames = getattr(opened, "n_frames", 1)
        deep = _is_deep(opened, data)
        opened.load()
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: is too large to be opened without tiles ({error}); shrink it, or test it in tiles"
        ) from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: is not an image that can be read; supported are {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise ImageError(f"{name}: is damaged or truncated ({error}); replace it or leave it out") from error
    if frames > 1:
        raise ImageError(f"{name}: contains {frames} images; save each one as a file")
    return opened, deep


def _open(data: bytes, name: str, channels: Wanted, any_size: bool) -> Image.Image:
    """Open any supported image; mode L or RGB comes back, or what ``convert`` turns into them."""
    opened, deep = open_image(data, name, any_size)
    image: Image.Image = opened
    if image.mode in ("L", "RGB") and not deep:
        return image
    if channels == "none":
        kind = "a 16-bit" if deep else _KINDS.get(image.mode, f"a mode {image.mode}")
        fitting = "RGB" if image.mode not in ("1", "LA", "F") and image.mode[0] != "I" else "L"
        raise ImageError(f"{name}: is {kind} image; choose channels {fitting} to have the images converted")
    if image.mode[0] == "I":  # 16-bit grey
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image


def _open_any_size(file: IO[bytes]) -> ImageFile.ImageFile:
    """Open an image without Pillow's limit of size, which is one for the whole program, all its threads included."""
    Image.init()
    head = file.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(head):
            file.seek(0)
            return factory(file, "")  # type: ignore[return-value]
    raise UnidentifiedImageError


def _is_deep(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Return whether the file has 16 bits per channel, which Pillow's mode does not show for RGB."""
    if image.mode[0] == "I":
        return True
    if image.format == "PNG":
        return len(data) > 24 and data[24] == 16
    if image.format == "PPM":
        numbers = [value for value in image.tile[0][3] or () if isinstance(value, int)]
        return bool(numbers) and numbers[-1] > 255
    if image.format == "TIFF":
        bits = image.tag_v2.get(_BITS_PER_SAMPLE, 1)  # type: ignore[attr-defined]
        return bool(max(bits if isinstance(bits, tuple) else (bits,)) > 8)
    return False
