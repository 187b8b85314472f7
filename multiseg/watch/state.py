"""The state of a training, from the files of its run folder alone."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from multiseg.dataset.labels import Labels
from multiseg.errors import DatasetError, RunError
from multiseg.files import json_text, open_regular, read_bytes, read_json, tail
from multiseg.pages.numbers import number
from multiseg.report.class_curves import ClassIou, class_iou, class_names
from multiseg.run import names
from multiseg.run.reading import read_history, read_job
from multiseg.run.schemas import PROGRESS_VALUES, SUMMARY_VALUES
from multiseg.schema import Schema, problem
from multiseg.settings.metrics import COLUMNS, LOSS, METRICS
from multiseg.settings.resolved import OF_MACHINE

Status = Literal["waiting", "starting", "training", "validating", "finished", "stopped", "failed", "interrupted"]
RUNNING: tuple[Status, ...] = ("starting", "training", "validating")
ENDED: tuple[Status, ...] = ("finished", "stopped", "failed")
SILENT_SECONDS = 60.0  # without a sign of life, after which a training on another machine counts as interrupted
ID_DIGITS = 16
LOG_LINES, LONGEST_LINE = 12, 500
MOST_CHARACTERS = 2000  # of an error, of which the page shows four lines
SETTLED_SECONDS = 5.0  # after its end, in which a run may still change
DIFFERS_BETWEEN_SEEDS = {"seed", "device", *OF_MACHINE, "snapshot_interval", "keep"}

Stamp = tuple[int, int]  # time of the last change in nanoseconds, and size


@dataclass
class WatchedRun:
    """The files of a run folder, read again when they have changed. The folder may not exist yet."""

    path: Path
    id: str
    job: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    class_iou: ClassIou = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    """Why the folder cannot be read."""
    parts: tuple[str, ...] = ()
    """The folders of the path, without links."""
    labels: Labels | None = None
    classes: list[str] = field(default_factory=list)
    """Names of the classes whose IoU is recorded."""
    _stamps: dict[str, Stamp | None] = field(default_factory=dict)
    _ended: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.parts = self.path.resolve().parts

    def read(self) -> bool:
        """Read the files that have changed, and return whether job or history are among them."""
        new = self._changed(names.JOB, names.HISTORY, names.EVENTS)
        try:
            if new and self._stamps[names.JOB]:
                self.job, self.problem = read_job(self.path), ""
                self.labels = _labels(self.job, self.path)
            if new:
                self.history = read_history(self.path / names.HISTORY) if self._stamps[names.HISTORY] else []
                self.class_iou = class_iou(self.path, self.history)
                self.classes = class_names([self.class_iou])
        except RunError as error:
            self.problem = str(error)
        if self._changed(names.SUMMARY):
            self.summary = _json(self.path / names.SUMMARY, SUMMARY_VALUES)
        if self._changed(names.PROGRESS):
            self.progress = _json(self.path / names.PROGRESS, PROGRESS_VALUES)
        return new

    def _changed(self, *files: str) -> bool:
        stamps = {name: _stamp(self.path / name) for name in files}
        changed = any(self._stamps.get(name) != stamp for name, stamp in stamps.items())
        self._stamps |= stamps
        if changed:
            self._ended = None
        return changed

    @property
    def status(self) -> Status:
        """The state of the training. A process that ended without recording it is ``interrupted``."""
        recorded = next((status for status in ENDED if status == self.summary.get("status")), None)
        if recorded and not self._began_again():
            return recorded
        if self.job is None:
            return "starting" if entries(self.path) else "waiting"
        if not self._is_alive():
            return "interrupted"
        rows, iteration = self.history, self.progress.get("iteration", 0)
        due = not rows or (iteration % max(1, self._steps_per_epoch()) == 0 and rows[-1]["iteration"] != iteration)
        return "validating" if due else "training"

    def _steps_per_epoch(self) -> int:
        return int(self.progress.get("iterations", 0) // max(1, self.progress.get("epochs", 1)))

    def _began_again(self) -> bool:
        """Return whether a training was resumed after the summary was written."""
        summary, progress = self._stamps.get(names.SUMMARY), self._stamps.get(names.PROGRESS)
        newer = summary is not None and progress is not None and progress[0] > summary[0]
        return newer and not self.progress.get("ended") and self._is_alive()

    def _is_alive(self) -> bool:
        pid, host = self.progress.get("pid"), self.progress.get("host")
        if not isinstance(pid, int) or host != platform.node():
            stamps = [stamp[0] for stamp in self._stamps.values() if stamp]
            return bool(stamps) and time.time() - max(stamps) / 1e9 < SILENT_SECONDS
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return not _is_zombie(pid)

    def _left(self, status: Status) -> float | None:
        """Return the remaining seconds of the training, from its current speed; None if that is unknown."""
        speed = number(self.progress.get("images_per_second"))
        if speed is None:
            speeds = [row["images_per_second"] for row in self.history if row["images_per_second"]]
            speed = speeds[-1] if speeds else None
        if not speed or "iterations" not in self.progress or status not in RUNNING:
            return None
        steps = self.progress["iterations"] - self.progress["iteration"]
        training = steps * self.progress["batch_size"] / speed
        validation = self.history[-1]["val_seconds"] or 0.0 if self.history else 0.0
        interval = number((self.job or {}).get("settings", {}).get("val_interval")) or 1.0
        epochs = steps / max(1, self._steps_per_epoch())
        return float(training + validation * epochs / interval)

    def record(self) -> dict[str, Any]:
        """Return what the page shows of the run but its curves, as plain values for JSON.

        It is the same object for a run that has ended, until its files change.
        """
        if self._ended is not None:
            return self._ended
        record, summary = self._new_record(), self._stamps.get(names.SUMMARY)
        # a process that ends may still print; then nothing changes
        if record["status"] in ENDED and summary is not None and time.time() - summary[0] / 1e9 > SETTLED_SECONDS:
            self._ended = record
        return record

    def _new_record(self) -> dict[str, Any]:
        settings = (self.job or {}).get("settings", {})
        status, progress = self.status, self.progress
        row = self.history[-1] if self.history else {}
        iterations = progress.get("iterations")
        metric = next((one for one in COLUMNS if one.is_measured and row.get(one.key) is not None), METRICS[LOSS])
        value = number(row.get(metric.key))
        return {
            "path": str(self.path),
            "backend": settings.get("backend", ""),
            "status": status,
            "problem": self._problem(status),
            "epoch": number(progress.get("epoch", row.get("epoch"))),
            "epochs": settings.get("epochs"),
            "part": 1.0 if status == "finished" else progress["iteration"] / iterations if iterations else None,
            "loss": number(progress.get("loss", row.get("train_loss"))),
            "rate": number(progress.get("learning_rate", row.get("learning_rate"))),
            "speed": number(progress.get("images_per_second")) if status == "training" else None,
            "left": self._left(status),
            "score": {"title": metric.title, "text": metric.text(value), "value": value} if row else None,
            "log": _log(self.path / names.WORKER_LOG),
            "pictures": self._pictures(),
            "asks": status in ("training", "validating"),
            "group": self._group(settings),
        }

    def _group(self, settings: Mapping[str, Any]) -> str:
        """Return a key that this run shares with those that differ from it in the seed only; empty without a job."""
        if not settings:
            return ""
        kept = {key: value for key, value in settings.items() if key not in DIFFERS_BETWEEN_SEEDS}
        return sha256(
            json_text([kept, (self.job or {}).get("dataset", {}).get("content_hash")], indent=None).encode()
        ).hexdigest()[:16]

    def _problem(self, status: Status) -> str:
        if self.problem:
            return self.problem[:MOST_CHARACTERS]
        if status == "interrupted":
            return "its process ended without a last snapshot; resume it to continue from the one before"
        return str(self.summary.get("error") or "")[:MOST_CHARACTERS] if status in ("stopped", "failed") else ""

    def _pictures(self) -> dict[str, Any]:
        """Return the numbers of the pictures, and a stamp that changes with them."""
        try:
            files = [entry for entry in os.scandir(self.path / names.PICTURES) if entry.name.endswith("-output.png")]
            stamps = [entry.stat().st_mtime_ns for entry in files]
        except OSError:
            return {"count": 0, "stamp": ""}
        return {"count": len(files), "stamp": str(max(stamps, default=0))}


def id_of(folder: Path) -> str:
    """Return the id of a run in the page. It never stands for another folder: an old page may still send it."""
    return sha256(os.fsencode(folder.absolute())).hexdigest()[:ID_DIGITS]


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, by name; nothing if it does not exist or cannot be read."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _log(path: Path) -> list[str]:
    """Return the last lines of a log, none if it cannot be read."""
    try:
        with open_regular(path, follow=False) as file:
            return [line[:LONGEST_LINE] for line in tail(file.fileno(), LOG_LINES)]
    except OSError:
        return []


def total_left(records: Sequence[Mapping[str, Any]], seconds_of_finished: Sequence[float]) -> float | None:
    """Return the remaining seconds of all runs: those that train now, then the waiting ones, as many at the same time.

    A waiting run is assumed to take as long as the finished ones on average. None if a duration is unknown.
    """
    running = [record["left"] for record in records if record["status"] in RUNNING]
    waiting = sum(record["status"] == "waiting" for record in records)
    if not running or any(left is None for left in running) or (waiting and not seconds_of_finished):
        return None
    longest = max(running)
    if not waiting:
        return float(longest)
    mean = sum(seconds_of_finished) / len(seconds_of_finished)
    return float(max(longest, (sum(running) + waiting * mean) / len(running)))


def _labels(job: Mapping[str, Any], path: Path) -> Labels | None:
    try:
        return Labels.from_json(job["labels"], str(path)) if job.get("labels") else None
    except (DatasetError, KeyError, TypeError, ValueError):
        return None


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _json(path: Path, schema: Schema) -> dict[str, Any]:
    """Return the content of a JSON file; nothing if it cannot be read, or has values of another kind than ``schema`` states."""
    try:
        values = read_json(path, follow=False)
    except (OSError, ValueError):
        return {}
    return values if problem(values, schema) is None else {}


def _is_zombie(pid: int) -> bool:
    """Return whether a process has ended and its parent has not noticed yet; False where /proc does not exist."""
    try:
        content = read_bytes(f"/proc/{pid}/stat")  # with the name of the process, which is any bytes
    except OSError:
        return False
    return content.rpartition(b")")[2].split()[:1] == [b"Z"]
