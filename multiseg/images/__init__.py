"""Image files: open and decode them to arrays ``(C, H, W)`` in RGB, and turn arrays into pictures."""

from multiseg.images.arrays import (
    Encoding,
    PixelConversion,
    Pixels,
    array_to_image,
    encode_image,
    image_to_array,
    picture_of,
    save_image,
    to_image,
)
from multiseg.images.decoding import Channels, Decoded, Depth, Exif, decode, decode_image, load_image, turned
from multiseg.images.deep import NPY, Values, array_values, pnm_values
from multiseg.images.opening import (
    ARRAY_SUFFIX,
    BITS_PER_SAMPLE,
    FORMATS,
    SUFFIXES,
    open_image,
    open_plain_png,
    read_bytes,
    tag,
)

__all__ = [
    "ARRAY_SUFFIX",
    "BITS_PER_SAMPLE",
    "FORMATS",
    "NPY",
    "SUFFIXES",
    "Channels",
    "Decoded",
    "Depth",
    "Encoding",
    "Exif",
    "PixelConversion",
    "Pixels",
    "Values",
    "array_to_image",
    "array_values",
    "decode",
    "decode_image",
    "encode_image",
    "image_to_array",
    "load_image",
    "open_image",
    "open_plain_png",
    "picture_of",
    "pnm_values",
    "read_bytes",
    "save_image",
    "tag",
    "to_image",
    "turned",
]
