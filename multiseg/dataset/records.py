"""Read and write Caffe's Datum and BlobProto messages, the record formats of DIGITS' datasets.

The message classes are built here from Caffe's field numbers, in a separate descriptor pool: a process that also imports
pycaffe's ``caffe_pb2`` would otherwise define the same names twice, which protobuf refuses.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from multiseg.errors import DatasetError, ImageError
from multiseg.images import Pixels, Values, decode_image
from multiseg.layout import swap_red_blue

_Field = descriptor_pb2.FieldDescriptorProto
# one value of Datum's float_data, which is a repeated field of 32 bits and not packed
_FLOAT_TAG = 6 << 3 | 5
_FLOAT_FIELD = np.dtype([("tag", "u1"), ("value", "<f4")])
_DATA_TAG = 4 << 3 | 2
_MOST_PIXELS = 1 << 30  # of an encoded image: a dataset may have been created of images beyond the usual limit


def _message_classes() -> tuple[Any, Any]:
    """Build Datum and BlobProto from the field numbers in Caffe's caffe.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="multiseg_caffe_records.proto", package="multiseg", syntax="proto2")
    shape = file.message_type.add(name="BlobShape")
    shape.field.add(name="dim", number=1, type=_Field.TYPE_INT64, label=_Field.LABEL_REPEATED).options.packed = True

    datum = file.message_type.add(name="Datum")
    for number, name in ((1, "channels"), (2, "height"), (3, "width"), (5, "label")):
        datum.field.add(name=name, number=number, type=_Field.TYPE_INT32, label=_Field.LABEL_OPTIONAL)
    datum.field.add(name="data", number=4, type=_Field.TYPE_BYTES, label=_Field.LABEL_OPTIONAL)
    datum.field.add(name="float_data", number=6, type=_Field.TYPE_FLOAT, label=_Field.LABEL_REPEATED)
    datum.field.add(name="encoded", number=7, type=_Field.TYPE_BOOL, label=_Field.LABEL_OPTIONAL)

    blob = file.message_type.add(name="BlobProto")
    for number, name in ((1, "num"), (2, "channels"), (3, "height"), (4, "width")):
        blob.field.add(name=name, number=number, type=_Field.TYPE_INT32, label=_Field.LABEL_OPTIONAL)
    for number, name, kind in ((5, "data", _Field.TYPE_FLOAT), (8, "double_data", _Field.TYPE_DOUBLE)):
        blob.field.add(name=name, number=number, type=kind, label=_Field.LABEL_REPEATED).options.packed = True
    blob.field.add(
        name="shape",
        number=7,
        type=_Field.TYPE_MESSAGE,
        type_name=".multiseg.BlobShape",
        label=_Field.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    classes = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"multiseg.{n}")) for n in ("Datum", "BlobProto")
    )
    datum_class, blob_class = classes
    return datum_class, blob_class


Datum, BlobProto = _message_classes()


def raw_datum(pixels: Pixels) -> bytes:
    """Serialise ``(C, H, W)`` uint8 RGB as a raw Datum: three channels are stored BGR."""
    return _serialise(pixels.shape, np.ascontiguousarray(swap_red_blue(pixels)).data, encoded=False)


def encoded_datum(file_bytes: bytes, shape: tuple[int, int, int]) -> bytes:
    """Serialise an encoded image (PNG or JPEG bytes, RGB) of shape ``(C, H, W)`` as a Datum."""
    return _serialise(shape, file_bytes, encoded=True)


def values_datum(values: Values) -> bytes:
    """Serialise ``(C, H, W)`` RGB unencoded: uint8 as data, other types as float_data; three channels are stored BGR."""
    if values.dtype == np.uint8:
        return raw_datum(values)
    channels, height, width = values.shape
    shape: bytes = Datum(channels=channels, height=height, width=width).SerializeToString()
    fields = np.empty(values.size, _FLOAT_FIELD)
    fields["tag"], fields["value"] = _FLOAT_TAG, swap_red_blue(values).ravel()
    unencoded: bytes = Datum(encoded=False).SerializeToString()
    return b"".join((shape, fields.tobytes(), unencoded))


def _serialise(shape: tuple[int, ...], data: bytes | memoryview, encoded: bool) -> bytes:
    """Serialise a Datum and copy its data only once; a message object would copy them three times.

    Protobuf's encoding allows the concatenation of serialised messages. Fields are in the order of their numbers.
    """
    before, after = _frame(shape, memoryview(data).nbytes, encoded)
    return b"".join((before, data, after))


@lru_cache(maxsize=4096)
def _frame(shape: tuple[int, ...], size: int, encoded: bool) -> tuple[bytes, bytes]:
    """Return the bytes of a serialised Datum before and after its data."""
    channels, height, width = shape
    before: bytes = Datum(channels=channels, height=height, width=width).SerializeToString()
    length = bytearray()
    while size > 0x7F:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    after: bytes = Datum(encoded=encoded).SerializeToString()
    return before + b"\x22" + length, after  # 0x22: field 4, length-delimited


def parse_datum(record: bytes) -> Any:
    """Parse a Datum. Raise DatasetError if it is not one."""
    try:
        return Datum.FromString(record)
    except DecodeError:
        raise DatasetError("is not a Caffe Datum") from None


def datum_pixels(datum: Any, record: bytes = b"") -> NDArray[Any]:
    """Return a Datum's image as ``(C, H, W)`` RGB: uint8, or float32 if it contains float_data.

    ``record``, which the Datum was parsed from, makes reading float_data faster. Raises DatasetError if the data cannot be
    decoded or do not match the shape that the Datum declares.
    """
    data = datum.data
    if datum.encoded:
        try:
            return decode_image(data, "its image", "any", _MOST_PIXELS)
        except ImageError as error:
            raise DatasetError(str(error)) from None
    shape = (datum.channels, datum.height, datum.width)
    if min(shape) < 1:
        raise DatasetError(f"declares the shape {shape[0]}x{shape[1]}x{shape[2]}")
    count = shape[0] * shape[1] * shape[2]
    values = np.frombuffer(data, np.uint8) if data else _float_data(datum, record)
    if len(values) != count:
        raise DatasetError(
            f"contains {len(values)} values where its shape {shape[0]}x{shape[1]}x{shape[2]} needs {count}"
        )
    return swap_red_blue(values.reshape(shape))


def _float_data(datum: Any, record: bytes) -> NDArray[np.float32]:
    """Return a Datum's float_data. It is read from the record itself if its fields are in order, which is much faster."""
    count = len(datum.float_data)
    start = _start_of_floats(record)
    if count and start is not None and start + count * _FLOAT_FIELD.itemsize <= len(record):
        fields = np.frombuffer(record, _FLOAT_FIELD, count, start)
        if (fields["tag"] == _FLOAT_TAG).all():
            return fields["value"].astype(np.float32)
    return np.array(datum.float_data, dtype=np.float32)


def _start_of_floats(record: bytes) -> int | None:
    """Return the position of the first value of float_data; None if other fields than whole numbers and empty data precede it."""
    position = 0
    while position < len(record):
        tag = record[position]
        if tag == _FLOAT_TAG:
            return position
        if tag & 7 == 0:  # a number of variable length, whose last byte is below 128
            position += 1
            while position < len(record) and record[position] > 0x7F:
                position += 1
            position += 1
        elif tag == _DATA_TAG and record[position + 1 : position + 2] == b"\0":
            position += 2
        else:
            return None
    return None


def mean_blob(mean: NDArray[Any]) -> bytes:
    """Serialise a mean image ``(C, H, W)`` RGB as DIGITS' mean.binaryproto: three channels are stored BGR."""
    channels, height, width = mean.shape
    blob = BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(swap_red_blue(mean).astype(np.float64).ravel().tolist())
    message: bytes = blob.SerializeToString()
    return message


def parse_mean(record: bytes) -> NDArray[np.float32]:
    """Parse a mean.binaryproto into ``(C, H, W)`` float32 RGB. Raise DatasetError if it is not one."""
    try:
        blob = BlobProto.FromString(record)
    except DecodeError:
        raise DatasetError("is not a Caffe BlobProto") from None
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    values = np.array(blob.data or blob.double_data, dtype=np.float32)
    if len(shape) != 3 or min(shape) < 1 or len(values) != shape[0] * shape[1] * shape[2]:
        raise DatasetError(
            f"contains {len(values)} values in the shape {'x'.join(map(str, shape))}, which is not a mean image"
        )
    return np.ascontiguousarray(swap_red_blue(values.reshape(shape)))
