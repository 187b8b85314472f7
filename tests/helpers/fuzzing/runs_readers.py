"""Readers of run folders: each file of one, of a small run in NumPy; and of golden files."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import multiseg
from helpers.fuzzing import golden_readers
from helpers.fuzzing.reader import Reader
from multiseg.files import json_text
from multiseg.report.facts import environment, gather, settings
from multiseg.run import requests
from multiseg.run.folder import RunFolder
from multiseg.run.own_model import model_to_resume
from multiseg.run.resuming import completed
from multiseg.run.snapshots import Snapshot, snapshots
from multiseg.watch.state import WatchedRun

FOURTH = Path(__file__).parents[2] / "fourth_backend"
SNAPSHOT = "run/snapshots/epoch-0002"


def samples(folder: Path) -> None:
    """Train a run of two epochs on class indices."""
    sys.path.insert(0, str(FOURTH))
    importlib.invalidate_caches()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(FOURTH), os.environ.get("PYTHONPATH", "")])
    for kind in ("input", "target"):
        (folder / kind).mkdir()
        for index in range(6):
            Image.fromarray(np.full((4, 4), 40 * index, np.uint8)).save(folder / kind / f"{index}.png")
    multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=40, seed=1
    )
    golden_readers.samples(folder)
    job(folder).train(folder / "run", progress=False)
    (folder / "run" / ".request").write_text("stop")
    shutil.copytree(folder / "run", folder / "running" / "run")  # of which the summary is not written yet
    (folder / "running" / "run" / "summary.json").unlink()
    progress = json.loads((folder / "run" / ".progress.json").read_text())
    progress |= {"pid": os.getpid(), "ended": False, "iteration": 2, "time": time.time()}
    (folder / "running" / "run" / ".progress.json").write_text(json.dumps(progress))


def job(folder: Path) -> multiseg.Job:
    return multiseg.Job(
        dataset=folder / "dataset", backend="numpy", epochs=2, batch_size=2, threads=1, seed=1, keep="all"
    )


def _run(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "run")


def _opened(path: Path) -> None:
    """All that tests and comparisons read of a run without its process."""
    run = multiseg.Run.open(_run(path))
    described = [
        run.title, run.description, run.history, run.summary, run.values, run.exif, run.layout, run.labels, run.classifies,
        run.foreground, run.ignored, run.classes, run.model, run.image_shape, run.val_crop, run.mixed_sizes,
    ]  # fmt: skip
    json_text([str(value) for value in described])
    json_text(run.spec().to_json())
    json_text(run.spec(trains=True).to_json())
    with tempfile.TemporaryDirectory() as folder:
        run.export_history(Path(folder, "history.csv"))


def _compared(path: Path) -> None:
    facts = gather([multiseg.Run.open(_run(path))])
    for row in [*settings(facts), *environment(facts)]:
        str(row.values)
    str(facts[0].loss)


def _resumed(path: Path) -> None:
    """All that resuming reads before the process is started; the folder is not changed."""
    run = _run(path)
    folder = RunFolder.resume(run)
    model_to_resume(run, None, "numpy")
    completed(run, job(run.parent).resolve(), multiseg.Dataset.open(run.parent / "dataset").content_hash, None)
    str((folder.finished, folder.has_own_loss, folder.transferred))
    last = folder.last_snapshot()
    if last is not None:
        last.verify()
        str(last.position)


def _watched(path: Path) -> None:
    watched = WatchedRun(_run(path), id="0")
    watched.read()
    json_text(watched.record())  # as the server sends it: numbers that are not finite become null


def _snapshot(path: Path) -> None:
    run = _run(path)
    for snapshot in snapshots(run):
        str((snapshot.is_whole(), snapshot.position))


def _position(path: Path) -> Any:
    return Snapshot(2, path.parent).position


def _requested(path: Path) -> Any:
    content = path.read_bytes()
    request = requests.take(path.parent)
    path.write_bytes(content)
    return request


READERS = [
    Reader("job.json, opened", "run/job.json", _opened, 4),
    Reader("job.json, compared", "run/job.json", _compared, 3),
    Reader("job.json, resumed", "run/job.json", _resumed, 2),
    Reader("job.json, watched", "run/job.json", _watched, 2),
    Reader("history.csv, opened", "run/history.csv", _opened, 2),
    Reader("history.csv, compared", "run/history.csv", _compared, 2),
    Reader("history.csv, watched", "run/history.csv", _watched, 2),
    Reader("summary.json, opened", "run/summary.json", _opened, 2),
    Reader("summary.json, compared", "run/summary.json", _compared, 2),
    Reader("summary.json, resumed", "run/summary.json", _resumed, 0.5),
    Reader("summary.json, watched", "run/summary.json", _watched, 2),
    Reader("job.json of a running job", "running/run/job.json", _watched, 2),
    Reader("history.csv of a running job", "running/run/history.csv", _watched, 2),
    Reader("progress of a running job", "running/run/.progress.json", _watched, 3),
    Reader("events.jsonl, watched", "run/events.jsonl", _watched),
    Reader(".progress.json, watched", "run/.progress.json", _watched, 3),
    Reader(".request", "run/.request", _requested, 0.3),
    Reader("position.json", f"{SNAPSHOT}/position.json", _position, 3),
    Reader("position.json, resumed", f"{SNAPSHOT}/position.json", _resumed, 0.5),
    Reader("sums.json", f"{SNAPSHOT}/sums.json", _snapshot, 3),
    Reader("network of a snapshot", f"{SNAPSHOT}/network.npz", _snapshot, 0.5),
    *golden_readers.READERS,
]
