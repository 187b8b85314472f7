"""Decode image files and encoded images to arrays ``(C, H, W)`` in RGB: uint8, or float32 for values of more than 8 bits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageFile

from multiseg.errors import ImageError, SettingsError, setting
from multiseg.images.arrays import Pixels, image_to_array
from multiseg.images.deep import NPY, Values, array_values, deep_values
from multiseg.images.opening import (
    MOST_PIXELS,
    check_pixels,
    open_header,
    open_image,
    open_plain_png,
    read_bytes,
)

Channels = Literal["none", "L", "RGB"]
Wanted = Literal["none", "L", "RGB", "any"]
Exif = Literal["apply", "ignore"]
Depth = Literal["keep", "8"]

_ORIENTATION = 274  # tag of the EXIF and TIFF specifications
_INVERSE = {6: 8, 8: 6}  # the other orientations are their own inverse
_JPEG, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"  # start and end of image, ITU-T T.81
_PLAIN: dict[Channels, tuple[str, ...]] = {
    "none": ("L", "RGB"),
    "L": ("L",),
    "RGB": ("RGB",),
}  # modes by wanted channels
_LUMA = np.array([299, 587, 114]) / 1000  # ITU-R 601-2, as in Pillow

_KINDS = {
    "1": "a 1-bit",
    "P": "a palette",
    "PA": "a palette",
    "LA": "a transparent",
    "RGBA": "a transparent",
    "CMYK": "a CMYK",
}


@dataclass(frozen=True)
class Decoded:
    """An image ``(C, H, W)`` in RGB, uint8 or float32, and what was applied to it: its orientation, its transparency."""

    values: Values
    oriented: bool = False
    transparent: bool = False


def load_image(
    path: str | os.PathLike[str],
    channels: Channels = "none",
    exif: Exif = "apply",
    max_pixels: int | None = MOST_PIXELS,
) -> Values:
    """Load an image file as ``(C, H, W)`` in RGB: uint8, or float32 for values of more than 8 bits.

    Raises ImageError if the file is missing, unreadable, or of a kind that ``channels`` must convert. See :func:`decode`.
    """
    return decode(read_bytes(path), os.fspath(path), channels, exif, max_pixels=max_pixels).values


def decode_image(data: bytes, name: str, channels: Wanted = "none", max_pixels: int | None = MOST_PIXELS) -> Pixels:
    """Decode an image to ``(C, H, W)`` uint8, RGB, as DIGITS and Caffe do: by high bytes, and without EXIF orientation.

    ``channels`` may also be "any": L and RGB as they are, other modes as RGB. See :func:`decode`.
    """
    return decode(data, name, channels, "ignore", "8", max_pixels).values


def decode(
    data: bytes,
    name: str,
    channels: Wanted = "none",
    exif: Exif = "apply",
    depth: Depth = "keep",
    max_pixels: int | None = MOST_PIXELS,
) -> Decoded:
    """Decode the bytes of an image file, or of a .npy file, to ``(C, H, W)`` in RGB; ``name`` is for error messages.

    ``channels`` "L" or "RGB" converts any mode: grey by ITU-R 601-2 luma, transparency over white (as in DIGITS). "none" returns
    grey and RGB and raises ImageError for other modes and for transparent pixels. Values of more than 8 bits are kept as float32;
    with ``depth`` "8" their high byte is returned. ``exif`` "apply" turns and mirrors the image by its orientation. An image
    of more than ``max_pixels`` is an ImageError before it is decoded; None is no limit.
    """
    if channels not in get_args(Wanted):
        raise SettingsError(
            f"{setting('channels')} {channels!r} is unknown; it is one of {', '.join(get_args(Channels))}"
        )
    if data.startswith(NPY):
        return Decoded(_converted(array_values(data, name), channels, name))
    check_pixels(data, name, max_pixels)
    plain = open_plain_png(data)
    if plain is not None:
        return Decoded(_pixels(plain, channels))
    image, deep = open_image(data, name)
    if deep and depth == "keep":
        values, transparent = deep_values(image, data, name, channels != "none")
        if transparent and channels == "none":
            raise _refusal(name, "a transparent", values.shape[0] == 1)
        values = _converted(values, channels, name)
    else:
        visible, transparent = _visible(image, name, channels, deep)
        values = _pixels(visible, channels)
    turns = _missing_turns(image, data, exif)
    oriented = exif == "apply" and _stored_orientation(image, data) != 1
    return Decoded(_turned(values, turns), oriented, transparent)


def turned(values: Values, data: bytes, name: str, exif: Exif) -> Decoded:
    """Return values (C, H, W) read from a file's bytes in their stored order, turned by the file's EXIF orientation."""
    if data.startswith(NPY) or _orientation(open_header(data)) == 1:
        return Decoded(values)
    image, _ = open_image(data, name)
    return Decoded(_turned(values, _missing_turns(image, data, exif)), exif == "apply")


def is_plain_jpeg(data: bytes, channels: Channels) -> bool:
    """Return whether the bytes of an image that can be decoded are a JPEG file with these channels and in its stored orientation.

    All programs decode it to the same pixels, whether they apply EXIF orientations or not. Nothing, such as the video that a
    telephone appends, follows the image.
    """
    if not (data.startswith(_JPEG) and data.endswith(_JPEG_END)):
        return False
    image = open_header(data)
    return image.format == "JPEG" and image.mode in _PLAIN[channels] and _orientation(image) == 1


def _visible(image: Image.Image, name: str, channels: Wanted, deep: bool) -> tuple[Image.Image, bool]:
    """Return an image without transparency, by its high bytes, in mode L or RGB or one that ``convert`` turns into them.

    Also returns whether it has transparent pixels. Raises ImageError for ``channels`` "none" if a conversion is necessary.
    """
    kind = "a 16-bit" if deep else ""
    transparent = False
    if channels == "any" and image.mode in ("L", "RGB"):
        return image, False
    if image.mode[0] == "I" and channels != "none":  # 16-bit grey
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        full = image.convert("RGBA")
        transparent = full.getchannel("A").getextrema()[0] < 255  # type: ignore[operator]
        if transparent and channels != "none":
            image = Image.alpha_composite(Image.new("RGBA", full.size, "white"), full).convert("RGB")
        elif not transparent and image.mode in ("LA", "RGBA"):
            image = image.convert(image.mode[:-1])
        elif transparent:
            kind = "a transparent"
    if image.mode not in ("L", "RGB"):
        kind = kind or _KINDS.get(image.mode, f"a mode {image.mode}")
    if kind and channels == "none":
        raise _refusal(name, kind, image.mode in ("1", "L", "LA", "F") or image.mode[0] == "I")
    return image, transparent


def _refusal(name: str, kind: str, grey: bool) -> ImageError:
    return ImageError(f"{name}: is {kind} image; choose channels {'L' if grey else 'RGB'} to have the images converted")


def _pixels(image: Image.Image, channels: Wanted) -> Pixels:
    if channels == "any":
        image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    elif channels not in ("none", image.mode):
        image = image.convert(channels)
    return image_to_array(image)


def _converted(values: Values, channels: Wanted, name: str) -> Values:
    """Convert values ``(C, H, W)`` of one or three channels to those of ``channels``; others must be kept."""
    wanted = {"L": 1, "RGB": 3}.get(channels, len(values))
    if len(values) == wanted:
        return values
    if len(values) not in (1, 3):
        raise ImageError(f"{name}: has {len(values)} channels, which cannot be converted to {channels}")
    if wanted == 3:
        return np.repeat(values, 3, axis=0)
    grey = np.tensordot(_LUMA, values, 1)[np.newaxis]
    return np.rint(grey).astype(np.uint8) if values.dtype == np.uint8 else grey.astype(np.float32)


def _stored_orientation(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return the orientation that a file declares, 1 to 8; 1, which changes nothing, if it declares none or an unknown one."""
    opened: Image.Image = image
    if image.format == "TIFF":  # Pillow applies it when it loads the file, and forgets it
        opened = open_header(data)
    return _orientation(opened)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data, whose image can be read, are no orientation
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _missing_turns(image: ImageFile.ImageFile, data: bytes, exif: Exif) -> int:
    """Return the orientation that remains to be applied to a loaded image, whose reader may have applied it."""
    stored, remaining = _stored_orientation(image, data), _orientation(image)
    if exif == "apply":
        return remaining
    return _INVERSE.get(stored, stored) if stored != remaining else 1


def _turned(values: Values, orientation: int) -> Values:
    """Apply an EXIF orientation to ``(C, H, W)``: 2 to 4 mirror or turn by 180 degrees, 5 to 8 also swap height and width."""
    if orientation >= 5:
        values = values.swapaxes(1, 2)
    if orientation in (2, 3, 6, 7):
        values = values[:, :, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[:, ::-1]
    return np.ascontiguousarray(values)
