"""Arrays as Caffe's BlobProto, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from multiseg.network import Array
from multiseg_caffe.proto import BlobProto

DATA = b"\x2a"  # before BlobProto's packed field 5


def blob_of(value: Array) -> Any:
    """A BlobProto of an array."""
    data = value.astype("<f4").tobytes()
    blob = BlobProto.FromString(DATA + _varint(len(data)) + data)  # number by number it takes a hundred times as long
    blob.shape.SetInParent()  # a scalar has a shape, too
    blob.shape.dim.extend(value.shape)
    return blob


def array_of(blob: Any) -> Array:
    """The array of a BlobProto that tells its shape."""
    return np.array(blob.data, np.float32).reshape(tuple(blob.shape.dim))


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])
