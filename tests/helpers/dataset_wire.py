"""DIGITS' dataset job folders, written and read with nothing but lmdb and protobuf's wire format by hand.

It shares no code with multiseg, so that the two check each other. Field numbers are those of Caffe's caffe.proto.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
from PIL import Image

DATUM = {1: "channels", 2: "height", 3: "width", 4: "data", 5: "label", 6: "float_data", 7: "encoded"}
BLOB = {1: "num", 2: "channels", 3: "height", 4: "width", 5: "data"}


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def chunk(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def floats(field: int, values: Any, packed: bool) -> bytes:
    if packed:
        return chunk(field, struct.pack(f"<{len(values)}f", *values))
    return b"".join(varint(field << 3 | 5) + struct.pack("<f", value) for value in values)


def parse(message: bytes, names: dict[int, str]) -> dict[str, Any]:
    """Parse a flat message; packed floats stay bytes."""
    found: dict[str, Any] = {}
    position = 0

    def take() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        tag = take()
        if tag & 7 == 0:
            found[names[tag >> 3]] = take()
        else:
            assert tag & 7 == 2, tag
            size = take()
            found[names[tag >> 3]] = message[position : position + size]
            position += size
    return found


def raw(image: np.ndarray, label: int | None = None) -> bytes:
    """An image (H, W) or (H, W, 3) RGB as DIGITS stores it with encoding "none": CHW, three channels BGR."""
    if image.ndim == 2:
        channels, data = 1, image.tobytes()
    else:
        channels, data = 3, image[:, :, ::-1].transpose(2, 0, 1).tobytes()
    message = number(1, channels) + number(2, image.shape[0]) + number(3, image.shape[1]) + chunk(4, data)
    if label is not None:
        message += number(5, label)
    return message + number(7, 0)


def encoded(image: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """An image as DIGITS stores it with encoding "png" or "jpg": the file's bytes, RGB, and the shape."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    channels = 1 if image.ndim == 2 else 3
    return (
        number(1, channels)
        + number(2, image.shape[0])
        + number(3, image.shape[1])
        + chunk(4, buffer.getvalue())
        + number(7, 1)
    )


def mean(image: np.ndarray) -> bytes:
    """A mean image (H, W) or (H, W, 3) RGB as mean.binaryproto: BGR."""
    planes = image[np.newaxis] if image.ndim == 2 else image[:, :, ::-1].transpose(2, 0, 1)
    shape = b"".join(number(field, value) for field, value in enumerate((1, *planes.shape), 1))
    return shape + floats(5, planes.ravel().tolist(), packed=True)


def write_lmdb(folder: Path, records: list[tuple[bytes, bytes]]) -> Path:
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        for key, value in records:
            transaction.put(key, value)
    return folder


def read_lmdb(folder: Path) -> list[tuple[bytes, bytes]]:
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return list(transaction.cursor())


def counted(values: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(b"%09d" % index, value) for index, value in enumerate(values)]


def write_job(folder: Path, features: list[bytes], labels: list[bytes] | None, val: int = 0) -> Path:
    """A DIGITS job folder whose last ``val`` records are for validation."""
    parts = {"train_db": slice(0, len(features) - val), "val_db": slice(len(features) - val, None)}
    for name, part in parts.items():
        if features[part]:
            write_lmdb(folder / name / "features", counted(features[part]))
            if labels is not None:
                write_lmdb(folder / name / "labels", counted(labels[part]))
    return folder
