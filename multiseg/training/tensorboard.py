"""Write a log for TensorBoard with its own package (the extra ``tensorboard``).

Only the record writer of that package is used: its event writers import TensorFlow if that is installed, and tensorboardX
imports PyTorch.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from multiseg.errors import SettingsError, setting
from multiseg.files import read_bytes
from multiseg.run.names import PICTURES
from multiseg.settings.metrics import SCORES

FLUSH_SECONDS = 5
EPOCH = (*(metric.key for metric in SCORES), "images_per_second")


def require() -> None:
    """Raise SettingsError if TensorBoard's package cannot be imported."""
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            f"{setting('tensorboard')}: cannot be loaded ({error}); pip install 'multiseg[tensorboard]'"
        ) from error


class Log:
    """Logs the events of a training: ``step/loss`` and ``step/rate`` at each step, ``epoch/...`` for each row of the history,
    ``class_iou/...`` with it for class indices of pixels, and ``pictures/...``: outputs for the first validation images.

    A resumed training writes a new file; TensorBoard drops the points of older files that it repeats.
    """

    def __init__(self, folder: Path) -> None:
        require()
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._session, self._summary = Event, SessionLog, Summary
        folder.mkdir(exist_ok=True)
        # TensorBoard reads files in the order of their names
        path = folder / f"events.out.tfevents.{time.time_ns() // 1000:017}.{os.getpid()}"
        self._writer = RecordWriter(path.open("wb"))
        self._flushed = time.monotonic()
        self._pictures = folder.parent / PICTURES
        self._shown: dict[str, int] = {}  # time of the last change of each picture
        self._write(file_version="brain.Event:2")

    def __call__(self, event: dict[str, Any]) -> None:
        """Write one event of multiseg.training."""
        step = event.get("iteration", 0)
        if event["event"] == "start":
            self._write(step=step + 1, session_log=self._session(status=self._session.START))
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
            scalars = [self._summary.Value(tag=tag, simple_value=value) for tag, value in finite.items()]
            self._write(step=step, summary=self._summary(value=scalars))

    def _images(self, step: int) -> None:
        """Write the pictures of the run folder that have changed: inputs and targets once, outputs after each validation."""
        for path in sorted(self._pictures.glob("*.png")):
            changed = path.stat().st_mtime_ns
            if self._shown.get(path.name) != changed:
                self._shown[path.name] = changed
                image = self._summary.Image(encoded_image_string=read_bytes(path))
                value = self._summary.Value(tag=f"pictures/{path.stem}", image=image)
                self._write(step=step, summary=self._summary(value=[value]))

    def _write(self, **fields: Any) -> None:
        self._writer.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
