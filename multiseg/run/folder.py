"""The writing side of a run folder, for the training; multiseg.run reads it."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.dataset import Dataset
from multiseg.dataset.labels import Labels
from multiseg.errors import RunError, setting
from multiseg.files import write_json, write_text
from multiseg.run import names, snapshots
from multiseg.run.names import COLUMNS, FORMAT
from multiseg.run.reading import read_history, read_job
from multiseg.run.resuming import completed
from multiseg.run.snapshots import Position, Snapshot
from multiseg.settings.loaded import LoadedSettings
from multiseg.settings.metrics import cost, selecting
from multiseg.settings.resolved import Settings


class RunFolder:
    """The writing side of a run folder, for the training loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._made = False  # by this training, so that it may be removed where nothing was trained
        self.metric = "l1"
        self.rows: list[dict[str, Any]] = []
        self._summary: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """A new run folder. Raises RunError where something is there already."""
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(
                f"{path}: exists already; name another folder, remove it, or go on with it ({setting('resume')})"
            )
        try:
            (path / names.SNAPSHOTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot be created: {error.strerror}") from error
        folder = cls(path)
        folder._made = True
        return folder

    @classmethod
    def resume(cls, path: Path) -> RunFolder:
        """Return the folder of an interrupted run; one without a job.json is treated as new.

        Raises RunError where the folder is not that of a run.
        """
        folder = cls(path)
        if path.is_dir() and {entry.name for entry in path.iterdir()} <= names.BEFORE_JOB:
            folder._made = True
        else:
            read_job(path)
        return folder

    def complete(self, settings: Settings, content_hash: str, seed: int | None) -> Settings:
        """Return the settings with what they leave open taken from job.json; see multiseg.run.resuming.completed."""
        return completed(self.path, settings, content_hash, seed) if self.born else settings

    @property
    def born(self) -> bool:
        """Whether there is a job.json."""
        return (self.path / names.JOB).exists()

    @property
    def transferred(self) -> dict[str, Any] | None:
        """What it started from, as job.json has it; None where there were no weights."""
        found: dict[str, Any] | None = read_job(self.path)["weights"]
        return found

    @property
    def finished(self) -> bool:
        """Whether the training here is complete."""
        try:
            return bool(json.loads((self.path / names.SUMMARY).read_text())["status"] == "finished")
        except (OSError, ValueError, KeyError):
            return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second training out of this folder. Raises RunError where one is at work."""
        with (self.path / names.LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(f"{self.path}: another training is at work here") from error
            yield

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Removes a folder in which nothing was trained; records why a run stopped otherwise."""
        try:
            yield
        except BaseException as error:
            if self._made and not self.rows:
                shutil.rmtree(self.path, ignore_errors=True)
            elif self.rows:
                status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
                with suppress(OSError):  # the disk may be what failed
                    self._summarize(status=status, error=str(error))
                    self.log({"event": status, "error": str(error)})
            raise

    def start(
        self,
        settings: LoadedSettings,
        dataset: Dataset,
        mean: npt.NDArray[np.float32] | None,
        environment: dict[str, Any],
        transferred: dict[str, Any] | None,
    ) -> None:
        """Write job.json; ``transferred`` describes the weights that the training starts from."""
        write_json(
            self.path / names.JOB,
            {
                "format": FORMAT,
                "settings": settings.to_json(),
                "dataset": {
                    "path": settings.origins.get("dataset", str(dataset.path.resolve())),
                    "content_hash": dataset.content_hash,
                },
                "mean": None if mean is None else mean.tolist(),
                "input_shape": dataset.train.shape,
                "label_shape": dataset.train.label_shape,
                "labels": Labels(settings.network.get("labels", dataset.labels.kind)).to_json(),
                "network": settings.network,
                "environment": environment,
                "weights": transferred,
            },
        )

    def begin(self) -> Position:
        """Where to go on from: the newest snapshot's position, else the very beginning. What came after it is forgotten."""
        snapshots.clean(self.path)
        last = self.last_snapshot()
        position = last.position if last else Position()
        if (self.path / names.HISTORY).exists():  # not there where it was interrupted before the first validation
            self.rows = read_history(self.path / names.HISTORY)[: position.rows]
            self._write_history()
        return position

    def add_row(self, row: dict[str, Any]) -> None:
        """Append one row to the history."""
        self.rows.append(row)
        self._write_history()
        self._summarize(status="running")

    def log(self, event: dict[str, Any]) -> None:
        """Append an event to events.jsonl, with the time."""
        with (self.path / names.EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **event}, ensure_ascii=False) + "\n")

    def _write_history(self) -> None:
        text = io.StringIO()
        # a run resumed from a later version may have more columns: they are kept
        others = dict.fromkeys(key for row in self.rows for key in row if key not in COLUMNS)
        writer = csv.DictWriter(text, [*COLUMNS, *others])
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path / names.HISTORY, text.getvalue())

    def _summarize(self, **values: Any) -> None:
        best = self.best_row()
        self._summary |= {
            "epochs": self.rows[-1]["epoch"],
            "best_epoch": best["epoch"] if best else None,
            "train_seconds": sum(row["seconds"] for row in self.rows),
            **values,
        }
        write_json(self.path / names.SUMMARY, self._summary)

    def best_row(self) -> dict[str, Any] | None:
        """Return the row of the best validation, the first of several; the row before training does not count.

        The validation loss decides if no row has a value of the metric, as for labels that are class indices.
        """
        metric = selecting(self.metric, self.rows)
        scored = [(value, row) for row in self.rows if row["iteration"] and (value := cost(metric, row)) is not None]
        return min(scored, key=lambda pair: pair[0])[1] if scored else None

    def stalled(self, patience: int, min_delta: float) -> bool:
        """Return whether none of the last ``patience`` validations was better, by more than ``min_delta``, than all before."""
        metric = selecting(self.metric, self.rows)
        best, since = math.inf, 0
        for row in self.rows:
            if row["iteration"] and row[metric] is not None:
                value = cost(metric, row)
                better = value is not None and value < best - min_delta
                best, since = (value, 0) if better and value is not None else (best, since + 1)
        return since >= patience

    def finish(self, peak_memory_mb: float, **values: Any) -> None:
        """Record that the run is complete."""
        self._summarize(status="finished", peak_memory_mb=peak_memory_mb, **values)

    def last_snapshot(self) -> Snapshot | None:
        """The newest snapshot."""
        return next(reversed(snapshots.snapshots(self.path)), None)

    def keep(self, kind: str) -> None:
        """Remove the snapshots that need not be kept: all but the newest, and but for ``best`` the best one."""
        found = snapshots.snapshots(self.path)
        best = self.best_row() if kind == "best" else None
        for snapshot in found[:-1] if kind != "all" else []:
            if best is None or snapshot.epoch != best["epoch"]:
                snapshots.remove(snapshot)
