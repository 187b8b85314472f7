"""Several run folders as one state: runs that appear, their records and their curves."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multiseg.report.class_curves import class_colours, class_rows
from multiseg.report.curves import drawn_charts, kept, run_curves, steps_of
from multiseg.report.facts import loss_of, loss_unit
from multiseg.run.reading import is_run
from multiseg.settings.losses import loss_title
from multiseg.watch.state import RUNNING, WatchedRun, entries, id_of, total_left


class Watcher:
    """The runs in ``paths``: run folders, which need not exist yet, and folders of run folders, which may get more.

    Its methods may be called from several threads.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(dict.fromkeys(paths))
        self._runs: dict[str, WatchedRun] = {}  # by their ids
        self._records: dict[Path, tuple[str, dict[str, Any], dict[str, Any]]] = {}
        self._labels: list[str] = []
        self._classes: list[str] = []
        self._steps: dict[Path, int] = {}
        self._curves: dict[str, Any] = {}
        self._drawn: dict[Path, dict[str, Any]] = {}  # the curves of each run, the same object until they change
        self._lock = threading.Lock()

    def state(self) -> dict[str, Any]:
        """Read what has changed, and return the records of all runs, their curves and the remaining time of all.

        What has not changed is the same object as before.
        """
        with self._lock:
            for run_id, path in self._folders().items():
                if run_id not in self._runs:
                    self._runs[run_id] = WatchedRun(path, run_id)
            runs = list(self._runs.values())
            labels = _labels(runs)
            changed = {run.path for run in runs if run.read()}
            if changed or labels != self._labels or not self._curves:
                self._draw(runs, labels, changed)
            records = [self._record(run, label) for run, label in zip(runs, labels, strict=True)]
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

    def _draw(self, runs: Sequence[WatchedRun], labels: list[str], changed: set[Path]) -> None:
        """Renew the curves of the runs in ``changed``, and of those that others make different."""
        classes = list(dict.fromkeys(name for run in runs for name in run.classes))
        steps = steps_of([len(run.history) for run in runs], len(classes))
        for number, (run, label, step) in enumerate(zip(runs, labels, steps, strict=True)):
            same = self._labels[number : number + 1] == [label] and self._steps.get(run.path) == step
            if run.path in changed or not same or classes != self._classes:
                self._drawn[run.path] = _curve(number, run, label, step, classes)
                self._steps[run.path] = step
        self._labels, self._classes = labels, classes
        self._curves = _curves(runs, [self._drawn[run.path] for run in runs], classes)

    def _record(self, run: WatchedRun, label: str) -> dict[str, Any]:
        """Return the record of a run, the same object until it changes."""
        own = run.record()
        known = self._records.get(run.path)
        if known is None or known[0] != label or known[1] is not own:
            known = self._records[run.path] = label, own, {"id": run.id, "label": label, **own}
        return known[2]

    def _folders(self) -> dict[str, Path]:
        folders: dict[str, Path] = {}
        for path in self._paths:
            inner = [] if is_run(path) else [entry for entry in entries(path) if is_run(entry)]
            folders |= {id_of(folder): folder for folder in inner or [path]}
        # a folder that had no run yet may have become a folder of runs
        for gone in {id_of(path) for path in self._paths} & self._runs.keys() - folders.keys():
            del self._runs[gone]
        return folders

    def folder(self, run_id: str) -> Path | None:
        """Return the folder of the run with that id, None if there is none, or it is no longer watched."""
        with self._lock:
            run = self._runs.get(run_id)
        return run.path if run else None


def _curve(number: int, run: WatchedRun, label: str, step: int, classes: Sequence[str]) -> dict[str, Any]:
    """Return the data of the charts of one run."""
    loss = loss_of(run.job["settings"], loss_title) if run.job else ""
    rows = class_rows(kept(run.class_iou, step), classes) if run.classes else []
    return run_curves(number, label, loss, run.history, step) | {"classes": rows}


def _curves(runs: Sequence[WatchedRun], curves: list[dict[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Return the data of the charts of all runs, in their order."""
    return {
        "runs": curves,
        "charts": drawn_charts(curves),
        "classes": {"names": classes, "colours": class_colours([run.labels for run in runs], classes)}
        if classes
        else None,
        "shared_loss": len({loss_unit(run.job) for run in runs if run.job}) == 1,
    }


def _labels(runs: Sequence[WatchedRun]) -> list[str]:
    """Return a unique label for each run: the folder's name, with as many folders above it as are needed."""
    parts = [run.parts for run in runs]
    depths = [1] * len(parts)
    while True:
        labels = ["/".join(one[-depth:]) for one, depth in zip(parts, depths, strict=True)]
        longer = [at for at, one in enumerate(parts) if labels.count(labels[at]) > 1 and depths[at] < len(one)]
        if not longer:
            return labels
        for at in longer:
            depths[at] += 1
