"""Write a run folder during training; multiseg.run.run reads it."""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from multiseg.dataset import Dataset
from multiseg.dataset.cropping import crop_shapes
from multiseg.dataset.fitting import is_mixed, shapes_of
from multiseg.errors import LONGEST_MESSAGE, RunError, WorkerError, setting, shortened
from multiseg.files import LINK, json_text, make_folder, open_own, read_json, sync_one, try_lock, write_json, write_text
from multiseg.layout import Layout
from multiseg.model_files import copies
from multiseg.run import names, snapshots, sums
from multiseg.run.names import COLUMNS, FORMAT
from multiseg.run.reading import read_history, read_job
from multiseg.run.resuming import FREE, RESTARTED, completed
from multiseg.run.snapshots import Position, Snapshot
from multiseg.settings.loaded import LoadedSettings
from multiseg.settings.metrics import DEFAULT, cost, selecting
from multiseg.settings.resolved import Settings


class RunFolder:
    """Create, resume and write a run folder, for the training loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._created = False  # by this training, which removes it again if nothing was trained
        self.restarts = False  # resumed without a snapshot
        self.metric = DEFAULT
        self.rows: list[dict[str, Any]] = []
        self._summary: dict[str, Any] = {}

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Create a new run folder. Raises RunError if the path exists and is not an empty folder.

        The log of a worker that crashed before anything was trained may be in the folder; it is replaced.
        """
        entries = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
        if path.exists() and (not path.is_dir() or entries - {names.WORKER_LOG}):
            raise RunError(
                f"{path}: exists already; specify another folder, remove it, or resume the run ({setting('resume')})"
            )
        try:
            make_folder(path)
            (path / names.LOCK).touch()  # shows that what is beside it is of a training
            sync_one(path)
            (path / names.SNAPSHOTS).mkdir()
            (path / names.WORKER_LOG).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot be created: {error.strerror}") from error
        folder = cls(path)
        folder._created = True
        return folder

    @classmethod
    def resume(cls, path: Path) -> RunFolder:
        """Return the folder of an interrupted run; a training's folder without job.json, and an empty one, are treated as new.

        Raises RunError if the folder is not a run folder.
        """
        folder = cls(path)
        entries = {entry.name for entry in path.iterdir()} if path.is_dir() else {names.JOB}
        folder._created = entries <= {names.WORKER_LOG} or (entries <= names.BEFORE_JOB and names.LOCK in entries)
        if not folder._created:
            read_job(path)
        links = (path / name for name in sorted(entries & names.OWN) if (path / name).is_symlink())
        link = next(
            (link for link in links if link.name != names.SNAPSHOTS or not snapshots.on_another_disk(path)), None
        )
        if link is not None:
            raise RunError(f"{link}: {LINK}; training would change what it refers to")
        if folder._created:
            (path / names.LOCK).touch()
            sync_one(path)
            (path / names.SNAPSHOTS).mkdir(exist_ok=True)
        return folder

    def complete(self, settings: Settings, content_hash: str, seed: int | None) -> Settings:
        """Return the settings with unset values taken from job.json; see multiseg.run.resuming.completed.

        A run without a snapshot starts again, and may have other batch sizes than before.
        """
        if not self.born:
            return settings
        sums.verify_model(self.path)
        self.restarts = self.last_snapshot() is None
        return completed(self.path, settings, content_hash, seed, (*FREE, *RESTARTED) if self.restarts else FREE)

    @property
    def born(self) -> bool:
        """Return whether the folder has a job.json."""
        return (self.path / names.JOB).exists()

    @property
    def has_own_loss(self) -> bool:
        """Whether the training that began in the folder has the loss of its network file."""
        return self.born and bool(read_job(self.path)["network"]["own_loss"])

    @property
    def transferred(self) -> dict[str, Any] | None:
        """The summary of the weights that the training started from, as in job.json; None if it started without weights."""
        summary: dict[str, Any] | None = read_job(self.path).get("weights")
        return summary

    @property
    def finished(self) -> bool:
        """Return whether the training is complete."""
        try:
            return bool(read_json(self.path / names.SUMMARY, follow=False)["status"] == "finished")
        except (OSError, ValueError, KeyError, TypeError):
            return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against a second training. Raises RunError if another training holds the lock."""
        lock = open_own(self.path / names.LOCK, "w")
        try:
            if try_lock(lock) == "held":
                raise RunError(
                    f"{self.path}: another training is using this folder; wait for it, or specify another folder"
                )
            yield
        finally:
            os.close(lock)

    @contextmanager
    def failing(self) -> Iterator[None]:
        """On an exception, remove the new folder if nothing was trained; otherwise record why the run stopped."""
        try:
            yield
        except BaseException as error:
            if self._created and not self.rows:
                self._remove(keep_log=isinstance(error, WorkerError))
            elif self.rows:
                status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
                message = shortened(str(error), LONGEST_MESSAGE)  # that of another library has any length
                with suppress(OSError):  # the disk itself may have failed
                    self._summarize(status=status, error=message)
                    self.log({"event": status, "error": message})
            raise

    def _remove(self, keep_log: bool) -> None:
        """Remove what a training writes, with ``keep_log`` all but the worker's log, and the folder if nothing else is in it."""
        kept = {names.WORKER_LOG} if keep_log else set()
        for name in [*sorted(names.OWN - kept - {names.LOCK}), names.LOCK]:  # the mark of the folder last
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def start(
        self,
        settings: LoadedSettings,
        dataset: Dataset,
        layout: Layout,
        environment: dict[str, Any],
        transferred: dict[str, Any] | None,
    ) -> None:
        """Write job.json; ``layout`` has mean and deviation, ``transferred`` is the summary of the weights to start from."""
        image_shape, whole_label_shape = shapes_of(dataset)
        shape, label_shape = crop_shapes(settings.val_crop, image_shape, whole_label_shape)
        earlier = read_job(self.path) if self.born else {}  # of a run that starts again, perhaps from its own copy
        model_path = earlier.get("model_path") or settings.origins.get("model", str(settings.model))
        write_json(
            self.path / names.JOB,
            {
                "format": FORMAT,
                "settings": settings.to_json(),
                "model_path": model_path,
                "dataset": {
                    "path": settings.origins.get("dataset", str(dataset.path.resolve())),
                    "content_hash": dataset.content_hash,
                    "values": dataset.values,
                    "exif": dataset.exif,
                },
                "mean": None if layout.mean is None else layout.mean.tolist(),
                "std": None if layout.std is None else layout.std.tolist(),
                "input_shape": shape,
                "label_shape": label_shape,
                "image_shape": image_shape,
                "mixed_sizes": is_mixed(dataset),
                "labels": replace(dataset.labels, kind=settings.network.get("labels", dataset.labels.kind)).to_json(),
                "network": settings.network,
                "model_files": copies.hashes(self.path / names.MODEL),
                "environment": environment,
                "weights": transferred,
                sums.RECORDED: "sha256",
            },
            follow=False,
        )

    def begin(self) -> Position:
        """Return the position to resume from, that of the newest snapshot or 0, and discard the history after it.

        Raises RunError if the newest snapshot is damaged, see Snapshot.verify.
        """
        snapshots.clean(self.path)
        last = self.last_snapshot()
        if last is not None:
            last.verify()
        position = last.position if last else Position()
        if (self.path / names.HISTORY).exists():  # missing if the run was interrupted before the first validation
            self.rows = read_history(self.path / names.HISTORY)[: position.rows]
            self._write_history()
        return position

    def add_row(self, row: dict[str, Any]) -> None:
        """Append one row to the history, and update the summary."""
        self.rows.append(row)
        self._write_history()
        self._summarize(status="running")

    def log(self, event: dict[str, Any]) -> None:
        """Append an event with the current time to events.jsonl."""
        with open(open_own(self.path / names.EVENTS, "a"), "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(json_text({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **event}, indent=None) + "\n")

    def _write_history(self) -> None:
        text = io.StringIO()
        # keep the columns that a later version of multiseg has written
        other_columns = dict.fromkeys(key for row in self.rows for key in row if key not in COLUMNS)
        writer = csv.DictWriter(text, [*COLUMNS, *other_columns])
        writer.writeheader()
        writer.writerows(self.rows)
        # synchronised with the snapshot
        write_text(self.path / names.HISTORY, text.getvalue(), sync_folder=False, follow=False)

    def _summarize(self, last: bool = False, **values: Any) -> None:
        best = self.best_row()
        self._summary |= {
            "epochs": self.rows[-1]["epoch"],
            "best_epoch": best["epoch"] if best else None,
            "train_seconds": sum(row["seconds"] for row in self.rows),
            **values,
        }
        write_json(self.path / names.SUMMARY, self._summary, sync_folder=last, follow=False)

    def best_row(self) -> dict[str, Any] | None:
        """Return the row of the best validation, the first of equal ones, leaving out the row before training.

        Rows are compared by the validation loss if none has a value of the metric, as for labels that are class indices.
        """
        metric = selecting(self.metric, self.rows)
        scored = [(value, row) for row in self.rows if row["iteration"] and (value := cost(metric, row)) is not None]
        return min(scored, key=lambda pair: pair[0])[1] if scored else None

    def stalled(self, patience: int, min_delta: float) -> bool:
        """Return whether none of the last ``patience`` validations improved on all earlier ones by more than ``min_delta``."""
        metric = selecting(self.metric, self.rows)
        best, since = math.inf, 0
        for row in self.rows:
            if row["iteration"] and row[metric] is not None:
                value = cost(metric, row)
                improved = value is not None and value < best - min_delta
                best, since = (value, 0) if improved and value is not None else (best, since + 1)
        return since >= patience

    def finish(self, peak_memory_mb: float, **values: Any) -> None:
        """Record that the run is complete."""
        self._summarize(last=True, status="finished", peak_memory_mb=peak_memory_mb, **values)

    def last_snapshot(self) -> Snapshot | None:
        """Return the newest snapshot, None if there is none."""
        return next(reversed(snapshots.snapshots(self.path)), None)

    def keep(self, kind: str) -> None:
        """Remove old snapshots: all except the newest (``last``), also except the best one (``best``), or none (``all``)."""
        stored = snapshots.snapshots(self.path)
        best = self.best_row() if kind == "best" else None
        for snapshot in stored[:-1] if kind != "all" else []:
            if best is None or snapshot.epoch != best["epoch"]:
                snapshots.remove(snapshot)
