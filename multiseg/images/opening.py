"""Open image files and encoded images with Pillow; name the file in every error."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import IO

from PIL import Image, ImageFile, UnidentifiedImageError

from multiseg import files
from multiseg.errors import ImageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
ARRAY_SUFFIX = ".npy"  # of an array saved by NumPy
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")
# tags of the TIFF specification, and a value of the second
BITS_PER_SAMPLE = 258
SAMPLE_FORMAT = 339
SIGNED = 2


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file. Raise ImageError, which names it, if it cannot be read."""
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise ImageError(f"{os.fspath(path)}: cannot be read: {error.strerror or error}") from error


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
    """Return an image file's content in Pillow's mode, and whether its values need more than 8 bits.

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
        if data[:4] in (b"II*\0", b"MM\0*"):
            raise ImageError(
                f"{name}: is a TIFF of a kind that cannot be read; save its values with numpy.save"
            ) from None
        raise ImageError(f"{name}: is not an image that can be read; supported are {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise ImageError(f"{name}: is damaged or truncated ({error}); replace it or leave it out") from error
    if frames > 1:
        raise ImageError(f"{name}: contains {frames} images; save each one as a file")
    return opened, deep


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
    """Return whether the values do not fit in 8 bits without a sign, which Pillow's mode does not show for RGB."""
    if image.mode[0] == "I" or image.mode == "F":
        return True
    if image.format == "PNG":
        return len(data) > 24 and data[24] == 16
    if image.format == "PPM":
        numbers = [value for value in image.tile[0][3] or () if isinstance(value, int)]
        return bool(numbers) and numbers[-1] > 255
    if image.format == "TIFF":
        return tag(image, BITS_PER_SAMPLE) > 8 or tag(image, SAMPLE_FORMAT) == SIGNED
    return False


def tag(image: ImageFile.ImageFile, number: int) -> int:
    """Return the value of a tag of a TIFF file, the largest of its channels; 1, the default of those used here, without it."""
    values = image.tag_v2.get(number, 1)  # type: ignore[attr-defined]
    return int(max(values)) if isinstance(values, tuple) else int(values)
