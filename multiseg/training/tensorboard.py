"""Write a log for TensorBoard, without its package: that and tensorboardX import TensorFlow or PyTorch if they are installed.

The format is public: records as TensorFlow's documentation of TFRecord describes them, each one message Event of event.proto.
"""

from __future__ import annotations

import math
import os
import struct
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from multiseg.files import read_bytes
from multiseg.run.names import PICTURES
from multiseg.settings.metrics import SCORES

FLUSH_SECONDS = 5
EPOCH = (*(metric.key for metric in SCORES), "images_per_second")

# what is written of the messages of event.proto and summary.proto: number, name and type of the fields
_MESSAGES = {
    "Image": [(4, "encoded_image_string", "BYTES")],
    "Value": [(1, "tag", "STRING"), (2, "simple_value", "FLOAT"), (4, "image", ".Image")],
    "Summary": [(1, "value", "repeated .Value")],
    "SessionLog": [(1, "status", "INT32")],
    "Event": [
        (1, "wall_time", "DOUBLE"), (2, "step", "INT64"), (3, "file_version", "STRING"), (5, "summary", ".Summary"),
        (7, "session_log", ".SessionLog"),
    ],
}  # fmt: skip
_START = 1  # a status of SessionLog


@cache
def _event_class() -> Any:
    """Return the class of Event, in a separate descriptor pool: TensorBoard's own may be in the same process."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="multiseg_tensorboard.proto", package="multiseg", syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, key, kind in fields:
            label = field.LABEL_REPEATED if kind.startswith("repeated ") else field.LABEL_OPTIONAL
            kind, _, inner = kind.removeprefix("repeated ").partition(".")
            options = {"type_name": f".multiseg.{inner}"} if inner else {}
            number_of_type = field.TYPE_MESSAGE if inner else field.Type.Value(f"TYPE_{kind}")
            message.field.add(name=key, number=number, label=label, type=number_of_type, **options)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("multiseg.Event"))


def _crc_table() -> list[int]:
    """Return CRC-32C (Castagnoli) of each byte, least significant bit first: its polynomial, reversed, is 0x82F63B78."""
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


_CRC = _crc_table()


def _checksum(data: bytes) -> bytes:
    """Return TFRecord's masked CRC-32C of ``data``, in 4 bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


class Log:
    """Logs the events of a training: ``step/loss`` and ``step/rate`` at each step, ``epoch/...`` for each row of the history,
    ``class_iou/...`` with it for class indices of pixels, and ``pictures/...``: outputs for the first validation images.

    A resumed training writes a new file; TensorBoard drops the points of older files that it repeats.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names
        path = folder / f"events.out.tfevents.{time.time_ns() // 1000:017}.{os.getpid()}"
        self._file = path.open("wb")
        self._flushed = time.monotonic()
        self._pictures = folder.parent / PICTURES
        self._shown: dict[str, int] = {}  # time of the last change of each picture
        self._write(file_version="brain.Event:2")

    def __call__(self, event: dict[str, Any]) -> None:
        """Write one event of multiseg.training."""
        step = event.get("iteration", 0)
        if event["event"] == "start":
            self._write(step=step + 1, session_log={"status": _START})
        elif event["event"] == "step":
            self._scalars(step, {"step/loss": event["loss"], "step/rate": event["rate"]})
        elif event["event"] == "epoch":
            by_class = event.get("class_iou", {})
            self._scalars(step, {f"epoch/{key}": event[key] for key in EPOCH})
            self._scalars(step, {f"class_iou/{name}": value for name, value in by_class.items()})
            self._images(step)

    def _scalars(self, step: int, values: dict[str, float | None]) -> None:
        finite = {tag: value for tag, value in values.items() if value is not None and math.isfinite(value)}
        if finite:
            self._write(
                step=step, summary={"value": [{"tag": tag, "simple_value": value} for tag, value in finite.items()]}
            )

    def _images(self, step: int) -> None:
        """Write the pictures of the run folder that have changed: inputs and targets once, outputs after each validation."""
        for path in sorted(self._pictures.glob("*.png")):
            changed = path.stat().st_mtime_ns
            if self._shown.get(path.name) != changed:
                self._shown[path.name] = changed
                image = {"encoded_image_string": read_bytes(path)}
                self._write(step=step, summary={"value": [{"tag": f"pictures/{path.stem}", "image": image}]})

    def _write(self, **fields: Any) -> None:
        data = _event_class()(wall_time=time.time(), **fields).SerializeToString()
        size = struct.pack("<Q", len(data))
        self._file.write(size + _checksum(size) + data + _checksum(data))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
