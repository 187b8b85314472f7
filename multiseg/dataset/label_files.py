"""Read the numbers that an image file stores, without any conversion: class masks count by value, not by appearance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from multiseg.errors import ImageError
from multiseg.images import BITS_PER_SAMPLE, NPY, Values, array_values, open_image, pnm_values, tag
from multiseg.layout import to_channels_last

_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # of the TIFF specification


@dataclass(frozen=True, eq=False)
class StoredImage:
    """The content of an image file as stored.

    - ``values``: (H, W) numbers, or (H, W, 3) colours; palette images have their indices. Of a 1-bit image they are 0 and 1.
    - ``palette``: (N, 3) uint8, the colours of a palette image.
    - ``alpha``: (H, W) uint8, if the file has an alpha channel.
    - ``lossy``: the compression that changed the values, e.g. ``JPEG``; empty if there is none.
    - ``bilevel``: whether the file has 1 bit per pixel.
    - ``lacks_grey``: whether the format has no grey mode, so that grey is three equal channels.
    """

    values: Values
    palette: NDArray[np.uint8] | None
    alpha: NDArray[np.uint8] | None
    lossy: str
    bilevel: bool
    lacks_grey: bool = False


def stored_image(data: bytes, name: str) -> StoredImage:
    """Return the content of an image file's bytes; ``name`` is for error messages.

    Raises ImageError if the file cannot be read, or has 16 bits per channel and several channels, which Pillow does not read.
    """
    if data.startswith(NPY):
        array = array_values(data, name)
        return StoredImage(array[0] if len(array) == 1 else to_channels_last(array), None, None, "", False)
    image, deep = open_image(data, name)
    palette = alpha = None
    values: Values
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        values = np.asarray(image)
        if image.mode == "PA":
            values, alpha = values[..., 0], values[..., 1]
    elif image.mode in ("LA", "RGBA", "La", "RGBa"):
        pixels = np.asarray(image)
        values, alpha = (pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]), pixels[..., -1]
    elif image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        values = values.astype(np.uint8) if image.mode == "1" else _unstretched(image, data, values, name)
    elif image.mode == "RGB":
        values = _unstretched(image, data, np.asarray(image), name)
    else:
        raise ImageError(f"{name}: is a mode {image.mode} image; save it as grey, palette or RGB")
    if deep and values.ndim == 3:
        raise ImageError(f"{name}: has 16 bits in each of {values.shape[2]} channels; save it with 8 bits")
    return StoredImage(values, palette, alpha, _lossy(image, data), image.mode == "1", image.format == "WEBP")


def _unstretched(image: ImageFile.ImageFile, data: bytes, values: Values, name: str) -> Values:
    """Return the numbers in the file where Pillow scaled them: to 0..255, or to 0..65535 for Netpbm files of 9 to 16 bits."""
    if image.format == "PPM" and image.mode != "F":
        samples = pnm_values(data, name)
        return samples[..., 0] if values.ndim == 2 else samples
    bits, inverted = 8, False
    if image.format == "PNG" and image.mode == "L":
        bits = data[24]
    elif image.format == "TIFF" and image.mode == "L":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        bits = tag(image, BITS_PER_SAMPLE)
        inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if bits not in (2, 4):
        return values
    most = 2**bits - 1
    numbers = values // (255 // most)
    result: Values = most - numbers if inverted else numbers
    return result


def _lossy(image: Image.Image, data: bytes) -> str:
    """Return the name of the lossy compression of a file, an empty text for a lossless one."""
    form = getattr(image, "format", None)
    if form in ("JPEG", "MPO"):
        return "JPEG"
    if form == "TIFF" and "jpeg" in str(image.info.get("compression")):
        return "JPEG"
    return "lossy WebP" if form == "WEBP" and b"VP8 " in data[12:4096] else ""
