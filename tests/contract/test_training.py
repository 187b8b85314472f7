"""Trainings in the real frameworks: randomness, snapshots, resuming, stopping."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers import small_models
from helpers.lending import weights_of
from helpers.processes import children, gone
from multiseg import backend as registry
from multiseg.errors import RunError, TrainingStopped, WorkerError
from multiseg.layout import Layout
from multiseg.training.signals import Stop

Begin = Callable[[], None]

TIMED = ("seconds", "val_seconds", "images_per_second")


def batch(backend: str, count: int = 8) -> dict[str, Any]:
    """Features and labels of ``count`` noise images, in the backend's layout."""
    declared = registry.get(backend)
    layout = Layout(declared.data_order, declared.channel_order, None)
    images = np.random.default_rng(7).integers(0, 256, (count, 1, 32, 32), dtype=np.uint8)
    return {"features": layout.features(images), "labels": layout.labels(images[::-1])}


def test_what_is_random_in_a_step_depends_on_its_seed_alone(backend: str, load: Any, tmp_path: Path) -> None:
    model = small_models.write(backend, tmp_path)
    worker = load(model=model, batch_size=8, learning_rate=1e-3, lr_policy="fixed")
    start = worker.call("get_weights")
    assert {name: value.shape for name, value in start.items()} == small_models.PARAMETERS

    def step(seed: int) -> tuple[float, dict[str, np.ndarray]]:
        worker.call("set_weights", weights=start)
        loss = worker.call("train_step", **batch(backend), rate=0.0, seed=seed)
        return loss, worker.call("get_weights")

    first, second, again = step(5)[0], step(6)[0], step(5)[0]
    assert first == again != second
    _, one, _ = worker.call("predict", **batch(backend))
    _, other, _ = worker.call("predict", **batch(backend))
    assert one == other  # nothing is random where nothing is learned


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the networks and runs that tests share."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def job(backend: str, dataset: Any, files: Path) -> multiseg.Job:
    """3 epochs of 14 steps of a small network with dropout: Adam, shuffled, augmented."""
    folder = files / backend
    folder.mkdir(exist_ok=True)
    return multiseg.Job(
        dataset=dataset.path, backend=backend, model=small_models.write(backend, folder), epochs=3, batch_size=8,
        solver="adam", learning_rate=1e-2, seed=3, threads=1, val_interval=0.5, snapshot_interval=0.3,
        augment={"flip": "both", "quarter_turns": True, "rotation": 30, "noise": 5},
    )  # fmt: skip


@pytest.fixture
def short(job: multiseg.Job, files: Path) -> multiseg.Run:
    """The job's run of one epoch, trained once for all tests that only look at it."""
    folder = files / job.backend / "short"
    if folder.exists():
        return multiseg.Run.open(folder)
    return replace(job, epochs=1).train(folder, progress=False)


def learned(run: multiseg.Run) -> dict[str, Any]:
    """All that a training must come to again: weights to the bit, and the history but for its times."""
    rows = [{key: row[key] for key in row if key not in TIMED} for row in run.history]
    return {"rows": rows, **{name: value.tobytes() for name, value in weights_of(run).items()}}


def after(events: int, act: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """A listener that acts once, at that event."""
    seen: list[Any] = []

    def listen(event: dict[str, Any]) -> None:
        seen.append(event)
        if len(seen) == events:
            act()

    return listen


PROGRAM = """
import json, sys, multiseg
multiseg.Job(**json.loads(sys.argv[1])).train(sys.argv[2], resume=sys.argv[3] == "True",
                                              progress=lambda event: print(event["event"], flush=True))
"""


def test_killed_anywhere_it_comes_to_the_same_to_the_bit(
    job: multiseg.Job, backend: str, tmp_path: Path, own_processes: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL for the worker, then for the program, each at a random event of the 60 or so; then Ctrl-C."""
    whole = learned(job.train(tmp_path / "whole", progress=False))
    own_processes()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    moments = random.Random(backend)

    with pytest.raises((WorkerError, RunError), match="SIGKILL"):
        kill = after(moments.randrange(5, 25), lambda: os.kill(children(os.getpid())[-1], signal.SIGKILL))
        job.train(tmp_path / "cut", progress=kill)

    settings = json.dumps({**vars(job), "dataset": str(job.dataset)}, default=str)
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, settings, str(tmp_path / "cut"), "True"], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    for _ in range(moments.randrange(2, 15)):
        assert program.stdout.readline()
    workers = children(program.pid)
    program.kill()
    program.wait()
    program.stdout.close()
    assert all(gone(worker) for worker in workers)

    monkeypatch.undo()  # a stop leaves the worker alive: from here on one worker is lent
    stop = Stop()
    with pytest.raises(TrainingStopped):
        job.train(tmp_path / "cut", resume=True, progress=after(moments.randrange(2, 10), stop.ask), stop=stop)
    cut = job.train(tmp_path / "cut", resume=True, progress=False)
    assert not list((tmp_path / "tmp").iterdir())
    assert learned(cut) == whole


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_to_the_bit(
    job: multiseg.Job, short: multiseg.Run, tmp_path: Path, threads: int, own_processes: Begin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Whether or not other processes read the images."""
    first = short if threads == 1 else replace(job, epochs=1, threads=threads).train(tmp_path / "a", progress=False)
    once = learned(first)
    own_processes()
    again = replace(job, epochs=1, threads=threads, data_workers=threads).train(tmp_path / "b", progress=False)
    monkeypatch.undo()
    assert learned(again) == once
    assert learned(replace(job, epochs=1, threads=threads, seed=4).train(tmp_path / "c", progress=False)) != once


def test_a_full_disk_leaves_the_last_snapshot_and_says_why(job: multiseg.Job, tmp_path: Path) -> None:
    """A limit on the size of files that the worker writes: as on a full disk, a write ends half way."""
    program = (
        "import json, os, resource, sys, multiseg\n"
        "from pathlib import Path\n"
        "from helpers.processes import children\n"
        "def limit(event):\n"
        "    if event['event'] == 'snapshot' and event['epoch'] == 1:\n"
        "        files = (Path(sys.argv[2]) / 'snapshots/epoch-0001').iterdir()\n"
        "        half = max(file.stat().st_size for file in files) // 2\n"
        "        resource.prlimit(children(os.getpid())[-1], resource.RLIMIT_FSIZE, (half, half))\n"
        "multiseg.Job(**json.loads(sys.argv[1])).train(sys.argv[2], progress=limit)\n"
    )
    settings = json.dumps({**vars(job), "dataset": str(job.dataset)}, default=str)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program, settings, str(tmp_path / "cut")],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 1 and "cannot be written: " in done.stderr, done.stderr
    assert not list((tmp_path / "cut/snapshots").glob(".*"))
    run = multiseg.Run.open(tmp_path / "cut")
    assert run.snapshot is not None and run.snapshot.epoch == 1
    assert weights_of(run)  # it opens
    assert job.train(tmp_path / "cut", resume=True, progress=False).summary["status"] == "finished"


WEIGHTS = {"caffe": "network.caffemodel", "torch": "network.pt", "tensorflow": "network.ckpt"}


def test_it_starts_from_the_weights_of_another_run_and_leaves_frozen_layers(
    job: multiseg.Job, short: multiseg.Run, tmp_path: Path
) -> None:
    assert short.snapshot is not None
    given = short.snapshot.path / WEIGHTS[job.backend]
    second = replace(job, epochs=1, seed=9, weights=given, freeze=["conv1"]).train(tmp_path / "second", progress=False)
    assert second.summary["weights"] == {
        "matched": list(small_models.PARAMETERS), "missing": [], "unused": [], "reshaped": [], "by_count": {},
        "renamed": {}, "reversed": [], "snapshot": None, "solver_state": None,
    }  # fmt: skip
    assert second.history[0]["l1"] == pytest.approx(short.history[-1]["l1"], rel=1e-6)
    before, after = weights_of(short), weights_of(second)
    for name in small_models.PARAMETERS:
        assert np.array_equal(before[name], after[name]) == name.startswith("conv1")


@pytest.mark.needs("torch")
def test_it_starts_from_the_checkpoint_of_another_program(dataset: Any, tmp_path: Path) -> None:
    """The network is part of a module there, beside options; one layer has another shape."""
    import argparse

    import torch

    random = np.random.default_rng(3)
    values = {name: random.normal(size=shape).astype(np.float32) for name, shape in small_models.PARAMETERS.items()}
    head = "conv2.bias"
    values[head] = np.zeros(7, np.float32)
    state = {f"net.{name}": torch.from_numpy(value) for name, value in values.items()}
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, tmp_path / "last.ckpt")
    model = small_models.write("torch", tmp_path)
    job = multiseg.Job(
        dataset, backend="torch", model=model, weights=tmp_path / "last.ckpt", epochs=1, freeze=["conv1"],
    )  # fmt: skip
    run = job.train(tmp_path / "run", progress=False)
    assert run.summary["weights"]["matched"] == [name for name in values if name != head]
    assert run.summary["weights"]["reshaped"] == [head]
    trained = weights_of(run)
    assert all(np.array_equal(trained[name], value) for name, value in values.items() if name.startswith("conv1"))


@pytest.mark.needs("caffe", "torch")
def test_weights_move_from_one_framework_to_another(dataset: Any, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "dataset": dataset,
        "epochs": 1,
        "solver": "adam",
        "learning_rate": 1e-2,
        "seed": 1,
        "loss": "l2",
    }
    for backend in ("caffe", "torch"):
        (tmp_path / backend).mkdir()
    caffe = multiseg.Job(backend="caffe", model=small_models.write("caffe", tmp_path / "caffe"), **settings)
    first = caffe.train(tmp_path / "first", progress=False)
    assert first.snapshot is not None
    torch = multiseg.Job(
        backend="torch", model=small_models.write("torch", tmp_path / "torch"),
        weights=first.snapshot.path / "network.caffemodel", **settings,
    )  # fmt: skip
    second = torch.train(tmp_path / "second", progress=False)
    assert second.history[0]["val_loss"] == pytest.approx(first.history[-1]["val_loss"], rel=1e-5)
