"""Open image files and encoded images with Pillow; name the file in every error."""

from __future__ import annotations

import io
import os
import struct
import zlib

from PIL import Image, ImageFile, UnidentifiedImageError

from multiseg import files
from multiseg.errors import ImageError, setting

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
ARRAY_SUFFIX = ".npy"  # of an array saved by NumPy
# of an image unless the user allows more: 8192x8192. A file of 100 kB may contain many times that
MOST_PIXELS = 1 << 26
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "TIFF", "WEBP")
MOST_TAGS = 4096  # of a TIFF file; there are about a hundred
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
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


def check_pixels(data: bytes, name: str, max_pixels: int | None) -> None:
    """Raise ImageError if an image has more pixels than ``max_pixels``, from its header alone; None is no limit.

    A file that is no image passes: opening it reports this.
    """
    if max_pixels is None:
        return
    if data[:16] == _PNG_HEAD:
        width, height = struct.unpack_from(">II", data.ljust(24, b"\0"), 16)
    else:
        try:
            width, height = open_header(data).size
        except Exception:  # Pillow's readers raise nearly anything on damaged files
            return
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: has {width}x{height} pixels, more than {setting('max_pixels', max_pixels)}; shrink it, or allow it by "
            f"{setting('max_pixels', width * height)} if there is enough memory"
        )


def open_plain_png(data: bytes) -> Image.Image | None:
    """Open a PNG file's bytes if it is plain: 8-bit L or RGB, not interlaced, with nothing in it but pixels.

    None means "not plain", damaged files included; Pillow's general way then opens it or says what is wrong. Small
    plain files, the usual ones here, decode three times faster this way.
    """
    if data[:16] != _PNG_HEAD or len(data) < 57:
        return None
    width, height, depth, colour, compression, filters, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    mode = {0: "L", 2: "RGB"}.get(colour)
    if (depth, compression, filters, interlace) != (8, 0, 0, 0) or mode is None or not width * height:
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


def open_image(data: bytes, name: str) -> tuple[ImageFile.ImageFile, bool]:
    """Return an image file's content in Pillow's mode, and whether its values need more than 8 bits.

    Raises ImageError, which names the file, if it is empty, damaged, of an unsupported format, or has several images.
    """
    if not data:
        raise ImageError(f"{name}: is empty; replace it or leave it out")
    try:
        opened = open_header(data)
        several = _has_several(opened)
        deep = _is_deep(opened, data)
        opened.load()
    except UnidentifiedImageError:
        if data[:4] in (b"II*\0", b"MM\0*"):
            raise ImageError(
                f"{name}: is a TIFF of a kind that cannot be read; save its values with numpy.save"
            ) from None
        raise ImageError(f"{name}: is not an image that can be read; supported are {', '.join(FORMATS)}") from None
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise ImageError(f"{name}: is damaged or truncated ({error}); replace it or leave it out") from error
    if several:
        raise ImageError(f"{name}: contains several images; save each one as a file")
    return opened, deep


def _has_several(image: ImageFile.ImageFile) -> bool:
    """Return whether a file has several images; of a TIFF file only the first directory is read, others may overlap endlessly."""
    if image.format == "TIFF":
        return bool(image.tag_v2.next)  # type: ignore[attr-defined]
    return bool(getattr(image, "n_frames", 1) > 1)


def open_header(data: bytes) -> ImageFile.ImageFile:
    """Open an image without decoding it, and without Pillow's limit of size, which all threads of the program share.

    Raises UnidentifiedImageError, and whatever Pillow's readers raise for damaged files.
    """
    Image.init()
    file = io.BytesIO(data)
    head = file.read(16)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(head):
            file.seek(0)
            try:
                if name == "TIFF":
                    _check_tiff(data)
                return factory(file, "")  # type: ignore[return-value]
            except (SyntaxError, IndexError, TypeError, struct.error):  # as Image.open
                continue
    raise UnidentifiedImageError


def _check_tiff(data: bytes) -> None:
    """Raise OSError if the first directory of a TIFF file has more than MOST_TAGS entries, which take seconds to read."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(f"{order}H", data, 2)[0] == 43  # BigTIFF
    (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
    count = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, start)[0] if start < len(data) else 0
    if count > MOST_TAGS:
        raise OSError(f"its directory has {count} entries")


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
