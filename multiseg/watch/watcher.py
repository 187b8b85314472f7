"""Several run folders as one state: runs that appear, their records and their curves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiseg.dataset.labels import Labels
from multiseg.errors import DatasetError
from multiseg.report.class_curves import class_curves
from multiseg.report.curves import drawn_charts, run_curves
from multiseg.report.facts import loss_of, loss_unit
from multiseg.run.reading import is_run
from multiseg.settings.losses import loss_title
from multiseg.watch.state import RUNNING, WatchedRun, entries, total_left


class Watcher:
    """The runs in ``paths``: run folders, which need not exist yet, and folders of run folders, which may get more.

    Its methods may be called from several threads.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(dict.fromkeys(paths))
        self._runs: dict[Path, WatchedRun] = {}
        self._labels: list[str] = []
        self._curves: dict[str, Any] = {}
        self._drawn: dict[Path, dict[str, Any]] = {}  # the curves of each run, the same object until they change
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """Read what has changed, and return the records of all runs, their curves and the remaining time of all.

        What has not changed is the same object as before.
        """
        with self._lock:
            for path in self._folders():
                self._runs.setdefault(path, WatchedRun(path))
            runs = list(self._runs.values())
            labels = _labels(runs)
            changed = {run.path for run in runs if run.read()}
            if changed or labels != self._labels or not self._curves:
                for number, (run, label) in enumerate(zip(runs, labels, strict=True)):
                    if run.path in changed or self._labels[number : number + 1] != [label]:
                        self._drawn[run.path] = _curve(number, run, label)
                self._labels, self._curves = labels, _curves(runs, [self._drawn[run.path] for run in runs])
            records = [
                {"id": number, "label": label, **run.record()}
                for number, (run, label) in enumerate(zip(runs, labels, strict=True))
            ]
            seconds = [
                run.summary.get("train_seconds", 0.0)
                for run, record in zip(runs, records, strict=True)
                if record["status"] == "finished"
            ]
            return {
                "runs": records,
                "curves": self._curves,
                "left": total_left(records, seconds),
                "active": any(record["status"] in (*RUNNING, "waiting") for record in records),
            }

    def _folders(self) -> list[Path]:
        folders: list[Path] = []
        for path in self._paths:
            inner = [] if is_run(path) else [entry for entry in entries(path) if is_run(entry)]
            folders += inner or [path]
        # a folder that had no run yet may have become a folder of runs
        for path in [path for path in self._runs if path not in folders and path in self._paths]:
            del self._runs[path]
        return folders

    def folder(self, number: int) -> Path | None:
        """Return the folder of the run with that number, None if there is none."""
        with self._lock:
            folders = list(self._runs)
        return folders[number] if 0 <= number < len(folders) else None


def _curve(number: int, run: WatchedRun, label: str) -> dict[str, Any]:
    """Return the data of the charts of one run."""
    return run_curves(number, label, loss_of(run.job["settings"], loss_title) if run.job else "", run.history)


def _curves(runs: Sequence[WatchedRun], curves: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the data of the charts of all runs, in their order."""
    return {
        "runs": curves,
        "charts": drawn_charts(curves),
        "classes": class_curves([run.class_iou for run in runs], [_labels_of(run) for run in runs]),
        "shared_loss": len({loss_unit(run.job) for run in runs if run.job}) == 1,
    }


def _labels(runs: Sequence[WatchedRun]) -> list[str]:
    """Return a unique label for each run: the folder's name, with as many folders above it as are needed."""
    parts = [run.path.resolve().parts for run in runs]
    depths = [1] * len(parts)
    while True:
        labels = ["/".join(one[-depth:]) for one, depth in zip(parts, depths, strict=True)]
        longer = [at for at, one in enumerate(parts) if labels.count(labels[at]) > 1 and depths[at] < len(one)]
        if not longer:
            return labels
        for at in longer:
            depths[at] += 1


def _labels_of(run: WatchedRun) -> Labels | None:
    try:
        return Labels.from_json(run.job["labels"], str(run.path)) if run.job and run.job.get("labels") else None
    except (DatasetError, KeyError, TypeError, ValueError):
        return None
