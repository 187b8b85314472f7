"""Convert between arrays and Caffe's BlobProto messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from multiseg.network import Array
from multiseg_caffe.proto import BlobProto

STORAGE_TYPES = {"DOUBLE": "<f8", "FLOAT": "<f4", "FLOAT16": "<f2"}
DATA = b"\x2a"  # the tag of BlobProto's packed field 5, data


def blob_of(value: Array) -> Any:
    """Return an array as a BlobProto, in float32."""
    data = value.astype("<f4").tobytes()
    blob = BlobProto.FromString(
        DATA + _varint(len(data)) + data
    )  # appending element by element is a hundred times slower
    blob.shape.SetInParent()  # a scalar has an (empty) shape, too
    blob.shape.dim.extend(value.shape)
    return blob


def array_of(blob: Any) -> Array:
    """Return the float32 array of a BlobProto that has the field shape."""
    return np.array(blob.data, np.float32).reshape(tuple(blob.shape.dim))


def numbers_of(blob: Any) -> Array:
    """Return the numbers of a BlobProto as a float32 vector, also those that NVIDIA's fork stores as bytes.

    Raises ValueError if the bytes are not of a known type, or not a whole number of elements.
    """
    if not blob.HasField("raw_data"):
        return np.array(blob.data or blob.double_data, dtype=np.float32)
    name = BlobProto.StorageType.Name(blob.raw_data_type)
    if name not in STORAGE_TYPES:
        raise ValueError(f"numbers of the type {name}")
    return np.frombuffer(blob.raw_data, STORAGE_TYPES[name]).astype(np.float32)


def _varint(number: int) -> bytes:
    """Return a number in protobuf's variable-length encoding."""
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])
