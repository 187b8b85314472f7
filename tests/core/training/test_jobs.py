"""Training jobs over a backend in NumPy: points in time, snapshots, resuming, stopping, early end, weights, failures."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import multiseg
from helpers.processes import children, gone
from multiseg.cli import main
from multiseg.errors import ModelError, MultisegError, RunError, SettingsError, TrainingStopped, WorkerError
from multiseg.run import snapshots
from multiseg.training.pace import Pace
from multiseg.training.plan import Plan
from multiseg.training.signals import Stop

TIMED = ("seconds", "val_seconds", "images_per_second")
SETTINGS: dict[str, Any] = {
    "epochs": 3, "batch_size": 10, "solver": "adam", "learning_rate": 1e-2, "seed": 3, "threads": 1,
    "val_interval": 0.5, "snapshot_interval": 0.3, "keep": "all",
    "augment": {"flip": "both", "quarter_turns": True, "rotation": 30, "noise": 5},
}  # fmt: skip

Events = list[dict[str, Any]]


@pytest.fixture
def job(fourth: str, dataset: Any) -> multiseg.Job:
    """3 epochs of 11 steps: Adam, shuffled, augmented, with dropout."""
    return multiseg.Job(dataset=dataset.path, backend=fourth, **SETTINGS)


def learned(run: multiseg.Run) -> dict[str, Any]:
    """All that a training must come to again: weights and solver's state to the bit, and the history but for its times."""
    assert run.snapshot is not None
    rows = [{key: row[key] for key in row if key not in TIMED} for row in run.history]
    with np.load(run.snapshot.path / "network.npz") as file:
        return {"rows": rows, **{name: file[name].tobytes() for name in file.files}}


@pytest.fixture(scope="module")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Callable[[multiseg.Job], dict[str, Any]]:
    """uncut(job): what the job learns where nothing stops it, trained once for all tests."""
    known: dict[str, dict[str, Any]] = {}

    def trained(job: multiseg.Job) -> dict[str, Any]:
        if repr(job) not in known:
            known[repr(job)] = learned(job.train(tmp_path_factory.mktemp("uncut") / "run", progress=False))
        return known[repr(job)]

    return trained


def at(iteration: int, act: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """A listener that acts once, when that many steps are done."""
    done: list[int] = []

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["iteration"] == iteration and not done:
            done.append(iteration)
            act()

    return listen


# --- points in time


def test_points_fall_on_the_iteration_after_their_time() -> None:
    plan = Plan(images=108, batch_size=10, epochs=2, val_interval=0.5, snapshot_interval=2)
    assert (plan.per_epoch, plan.iterations) == (11, 22)
    assert [i for i in range(23) if plan.validates(i)] == [0, 6, 11, 17, 22]  # 5.5, 11, 16.5, 22
    assert [i for i in range(1, 23) if plan.snapshots(i)] == [22]
    assert [plan.epoch(i) for i in (0, 11, 22)] == [0, 1, 2]
    assert plan.epoch(6) == pytest.approx(6 / 11, abs=1e-6)


def test_a_tenth_of_an_epoch_is_a_tenth_although_no_float_is() -> None:
    plan = Plan(images=100, batch_size=1, epochs=3, val_interval=0.1, snapshot_interval=1)
    assert [i for i in range(301) if plan.validates(i)] == list(range(0, 301, 10))


def test_an_interval_of_several_epochs_still_gives_a_row_for_each(job: multiseg.Job, tmp_path: Path) -> None:
    run = replace(job, val_interval=2).train(tmp_path / "run", progress=False)
    assert [(row["epoch"], row["l1"] is not None) for row in run.history] == [
        (0, True),
        (1, False),
        (2, True),
        (3, True),
    ]
    assert all(row["train_loss"] is not None for row in run.history[1:])


def test_the_training_loss_is_the_mean_over_the_images_since_the_last_row(job: multiseg.Job, tmp_path: Path) -> None:
    steps: Events = []
    run = job.train(tmp_path / "run", progress=lambda event: steps.append(event) if event["event"] == "step" else None)
    assert [row["iteration"] for row in run.history] == [0, 6, 11, 17, 22, 28, 33]
    assert [step["images"] for step in steps[:11]] == [10] * 10 + [8]  # the last batch is what is left
    for before, row in zip(run.history, run.history[1:], strict=False):
        part = steps[before["iteration"] : row["iteration"]]
        mean = sum(step["loss"] * step["images"] for step in part) / sum(step["images"] for step in part)
        assert row["train_loss"] == pytest.approx(mean, rel=1e-12)


# --- snapshots


def test_snapshots_are_there_at_their_interval_and_open(job: multiseg.Job, tmp_path: Path) -> None:
    run = job.train(tmp_path / "run", progress=False)
    found = [snapshot.path.name for snapshot in snapshots.snapshots(run.path)]
    steps = [4, 7, 10, 14, 17, 20, 24, 27, 30, 33]  # each 3.3 iterations, and the last: those of 0.3 epochs
    best = run.summary["best_epoch"]
    names = {f"epoch-{i // 11:04}" + (f"-step-{i % 11:05}" if i % 11 else "") for i in steps}
    assert names <= set(found)
    with multiseg.Run.open(run.path, snapshot="best") as opened:
        assert opened.snapshot is not None and opened.snapshot.epoch == best
        assert opened.test_db(opened.dataset.path / "val_db/features")["l1"] == pytest.approx(
            min(row["l1"] for row in run.history[1:])
        )


@pytest.mark.parametrize(("keep", "count"), [("last", 1), ("best", 2)])
def test_only_what_is_to_be_kept_is(job: multiseg.Job, tmp_path: Path, keep: str, count: int) -> None:
    # a rate that rises spoils what was learned: the best is not the last
    worse = replace(job, keep=keep, epochs=2, learning_rate=1e-3, lr_policy={"policy": "exp", "gamma": 1.6})
    run = worse.train(tmp_path / "run", progress=False)
    found = [snapshot.epoch for snapshot in snapshots.snapshots(run.path)]
    best = min((row for row in run.history[1:]), key=lambda row: row["l1"])["epoch"]
    assert best < 2
    assert found == ([2] if keep == "last" else [best, 2]) and len(found) == count
    assert not list((run.path / "snapshots").glob(".*"))


def test_the_best_is_told_by_the_metric_that_is_asked_for(job: multiseg.Job, tmp_path: Path) -> None:
    run = replace(job, metric="iou", threshold=100).train(tmp_path / "run", progress=False)
    best = max(row["iou"] for row in run.history[1:])
    first = next(row["epoch"] for row in run.history[1:] if row["iou"] == best)
    assert run.summary["best_epoch"] == first


# --- resuming


def test_a_command_to_resume_needs_no_settings(fourth: str, dataset: Any, tmp_path: Path) -> None:
    """Settings that are not stated are the run's, and the run ends as if nothing had stopped it; others are refused."""

    def run(folder: Path, *more: str) -> Result:
        return CliRunner().invoke(main, ["train", "--dataset", str(dataset.path), "--run", str(folder), *more])

    stated = [
        "--backend", fourth, "--metric", "l2", "--epochs", "2", "--solver", "adam", "--solver-option", "momentum=0.8",
        "--learning-rate", "0.01", "--lr-policy", "poly", "--lr-option", "power=1", "--seed", "3", "--patience", "9",
        "--augment", "flip=both", "--mean", "100", "--divide-std", "50", "--batch-size", "10", "--keep", "all",
        "--multiplier", "*.bias=2,0", "--val-interval", "0.5", "--threads", "1", "--threshold", "100", "--recipe", "equal",
        "--loss", "huber", "--loss-option", "delta=2", "--crop", "16",
    ]  # fmt: skip
    assert run(tmp_path / "whole", *stated).exit_code == 0
    assert run(tmp_path / "cut", *stated).exit_code == 0
    last = snapshots.snapshots(tmp_path / "cut")[-1].path
    shutil.rmtree(last)
    (tmp_path / "cut" / "summary.json").unlink()
    refused = run(tmp_path / "cut", "--resume", "--metric", "l1", "--threads", "1")
    assert refused.exit_code == 2 and "was trained with --metric l2, not 'l1'" in refused.output
    resumed = run(tmp_path / "cut", "--resume", "--threads", "1")
    assert resumed.exit_code == 0, resumed.output
    whole, cut = (multiseg.Run.open(tmp_path / name) for name in ("whole", "cut"))
    assert learned(cut) == learned(whole) and cut.settings["patience"] == 9


def test_a_job_to_resume_keeps_the_metric_and_the_patience(job: multiseg.Job, tmp_path: Path) -> None:
    stop = Stop()
    with pytest.raises(TrainingStopped):
        job = replace(job, metric="l2", patience=1, min_delta=1e9)
        job.train(tmp_path / "run", progress=at(2, stop.ask), stop=stop)
    run = replace(job, metric=None, patience=None).train(tmp_path / "run", resume=True, progress=False)
    assert run.settings["metric"] == "l2" and run.summary["stopped_early"]


def test_a_job_that_starts_again_keeps_its_start_weights(job: multiseg.Job, tmp_path: Path) -> None:
    job = replace(job, epochs=1, seed=4)
    start = replace(job, seed=5).train(tmp_path / "start", progress=False).path
    whole = learned(replace(job, weights=start, solver_state=False).train(tmp_path / "run", progress=False))
    for snapshot in snapshots.snapshots(tmp_path / "run"):
        shutil.rmtree(snapshot.path)
    (tmp_path / "run" / "summary.json").unlink()
    assert learned(job.train(tmp_path / "run", resume=True, progress=False)) == whole


@pytest.mark.parametrize("iteration", [1, 5, 11, 18, 29])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_stopped_anywhere_it_comes_to_the_same_to_the_bit(
    job: multiseg.Job, uncut: Callable[[multiseg.Job], dict[str, Any]], tmp_path: Path, iteration: int, solver: str
) -> None:
    job = replace(job, solver=solver, learning_rate=1e-2 if solver == "adam" else 1e-7)
    stop = Stop()
    with pytest.raises(TrainingStopped, match="continue with resume"):
        job.train(tmp_path / "cut", progress=at(iteration, stop.ask), stop=stop)
    assert multiseg.Run.open(tmp_path / "cut").summary["status"] == "stopped"
    reached = snapshots.snapshots(tmp_path / "cut")[-1].position.iteration
    assert iteration <= reached <= iteration + 2  # the steps under way are finished
    steps: Events = []
    cut = job.train(tmp_path / "cut", resume=True, progress=steps.append)
    assert next(event["iteration"] for event in steps if event["event"] == "step") == reached + 1
    assert learned(cut) == uncut(job)


def test_a_finished_run_is_left_as_it_is(job: multiseg.Job, tmp_path: Path) -> None:
    run = replace(job, epochs=1).train(tmp_path / "run", progress=False)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    events: Events = []
    assert replace(job, epochs=1).train(run.path, resume=True, progress=events.append).path == run.path
    assert not events and before == {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    with pytest.raises(RunError, match="augment"):
        replace(job, epochs=1, augment={}).train(run.path, resume=True, progress=False)


PROGRAM = """
import json, sys, multiseg
job = multiseg.Job(**json.loads(sys.argv[1]))
job.train(sys.argv[2], resume=sys.argv[3] == "resume", progress=lambda event: print(json.dumps(event), flush=True))
"""


def start(job: multiseg.Job, folder: Path, resume: bool) -> subprocess.Popen[str]:
    """The training as a program of its own, which prints each event."""
    settings = {**vars(job), "dataset": str(job.dataset)}
    arguments = [json.dumps(settings, default=str), str(folder), "resume" if resume else "new"]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [1, 5])
def test_messages_of_any_number_of_steps_train_the_same(
    job: multiseg.Job, uncut: Callable[[multiseg.Job], dict[str, Any]], tmp_path: Path, number: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Epochs of 11 steps are two messages of 5 and one of 1; each step is reported, in order."""
    monkeypatch.setattr(Pace, "steps", lambda self, step: number)
    iterations: list[int] = []

    def progress(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            iterations.append(event["iteration"])

    assert learned(job.train(tmp_path / "run", progress=progress)) == uncut(job)
    assert iterations == list(range(1, 34))


@pytest.mark.parametrize("victim", ["worker", "program"])
def test_killed_at_random_moments_it_comes_to_the_same_to_the_bit(
    job: multiseg.Job, uncut: Callable[[multiseg.Job], dict[str, Any]], tmp_path: Path, victim: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """SIGKILL after a random event, again and again until the training is through."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    moments = random.Random(victim)
    kills, done = 0, False
    while not done:
        program = start(job, tmp_path / "cut", resume=(tmp_path / "cut").exists())
        assert program.stdout is not None and program.stderr is not None
        moment, seen, workers = moments.randrange(2, 14), 0, []
        for _ in program.stdout:
            seen += 1
            if seen == moment:
                time.sleep(moments.random() * 0.003)
                workers = children(program.pid)
                os.kill(workers[0] if victim == "worker" and workers else program.pid, signal.SIGKILL)
                kills += 1
        said = program.stderr.read()
        program.wait()
        program.stdout.close()
        program.stderr.close()
        done = program.returncode == 0
        assert done or seen >= moment, said
        assert all(gone(worker) for worker in workers)
    assert kills >= 3
    assert not list((tmp_path / "tmp").iterdir())
    assert learned(multiseg.Run.open(tmp_path / "cut")) == uncut(job)
    assert {path.name for path in (tmp_path / "cut").rglob(".*")} == {".lock", ".progress.json"}


def test_a_run_killed_before_it_began_begins(job: multiseg.Job, tmp_path: Path) -> None:
    (tmp_path / "run/snapshots").mkdir(parents=True)
    (tmp_path / "run/worker.log").write_text("x")
    (tmp_path / "run/.lock").touch()  # the mark of a training's folder
    run = replace(job, epochs=1).train(tmp_path / "run", resume=True, progress=False)
    assert run.summary["status"] == "finished"
    (tmp_path / "log").mkdir()
    (tmp_path / "log/worker.log").write_text("x")  # what a worker that crashed before the first epoch leaves
    for resume in (True, False):
        run = replace(job, epochs=1).train(tmp_path / "log", resume=resume, progress=False)
        assert run.summary["status"] == "finished"
        shutil.rmtree(tmp_path / "log")
        (tmp_path / "log").mkdir()
        (tmp_path / "log/worker.log").write_text("x")
    with pytest.raises(RunError, match="is not a run folder"):
        job.train(tmp_path / "nothing", resume=True, progress=False)


# --- stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_leaves_a_snapshot(job: multiseg.Job, tmp_path: Path, number: int) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as caught:
        job.train(tmp_path / "run", progress=at(8, lambda: os.kill(os.getpid(), number)))
    assert isinstance(caught.value, TrainingStopped) and isinstance(caught.value, MultisegError)
    assert caught.value.signal == number and signal.Signals(number).name in str(caught.value)
    assert snapshots.snapshots(tmp_path / "run")[-1].position.iteration in (8, 9, 10)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_ctrl_c_ends_at_once(job: multiseg.Job, tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        job.train(tmp_path / "run", progress=at(2, twice))
    assert not isinstance(caught.value, TrainingStopped)
    assert not snapshots.snapshots(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stopped_before_its_first_step_it_resumes(
    job: multiseg.Job, uncut: Callable[[multiseg.Job], dict[str, Any]], tmp_path: Path
) -> None:
    stop = Stop()

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            stop.ask()

    with pytest.raises(TrainingStopped, match="after iteration 0"):
        job.train(tmp_path / "cut", progress=listen, stop=stop)
    assert learned(job.train(tmp_path / "cut", resume=True, progress=False)) == uncut(job)


# --- early end


def test_it_ends_when_validations_get_no_better(job: multiseg.Job, tmp_path: Path) -> None:
    flat = replace(job, epochs=30, patience=3, min_delta=1e4)  # nothing improves by that much
    run = flat.train(tmp_path / "run", progress=False)
    assert [row["iteration"] for row in run.history] == [0, 6, 11, 17, 22]  # the first, and three no better
    assert run.summary["status"] == "finished" and run.summary["stopped_early"] is True
    assert snapshots.snapshots(run.path)[-1].epoch == 2
    assert replace(job, patience=3).train(tmp_path / "other", progress=False).summary["stopped_early"] is False


# --- weights and freezing


def test_it_starts_from_given_weights_by_name_and_says_what_fits(job: multiseg.Job, tmp_path: Path) -> None:
    given = {
        "conv.weight": np.full((1, 1, 3, 3), 0.125, np.float32), "conv.bias": np.zeros(2, np.float32),
        "other.weight": np.zeros(3, np.float32),
    }  # fmt: skip
    np.savez(tmp_path / "given.npz", **given)
    events: Events = []
    run = replace(job, weights=tmp_path / "given.npz", epochs=1, freeze=["con*"]).train(
        tmp_path / "run", progress=events.append
    )
    fits = {
        "matched": ["conv.weight"], "missing": ["scale.weight", "scale.bias"], "unused": ["other.weight"],
        "reshaped": ["conv.bias"], "by_count": {},
        "renamed": {}, "reversed": [], "snapshot": None, "solver_state": None,
    }  # fmt: skip
    assert events[0]["weights"] == fits == run.summary["weights"]
    with run:
        weights = run.worker().call("get_weights")
    assert np.array_equal(weights["conv.weight"], given["conv.weight"])  # started from, and frozen
    assert weights["scale.bias"] != 0


def test_a_frozen_layer_that_would_stay_random_is_refused(job: multiseg.Job, tmp_path: Path) -> None:
    """Its weights are of another shape; a bias that starts at 0 is a warning."""
    np.savez(
        tmp_path / "w.npz", **{"conv.weight": np.ones((1, 1, 5, 5), np.float32), "scale.bias": np.ones(1, np.float32)}
    )
    with pytest.raises(
        SettingsError,
        match=r"freeze=\['con\*'\]: 'conv\.weight' would stay at random .* it has another shape in .*w\.npz; leave",
    ):
        replace(job, weights=tmp_path / "w.npz", freeze=["con*"]).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_weights_of_which_none_fits_are_refused(job: multiseg.Job, tmp_path: Path) -> None:
    np.savez(tmp_path / "given.npz", **{"other.weight": np.zeros(3, np.float32)})
    with pytest.raises(ModelError, match=r"no weights in it fit .* other.weight \(3,\), the network conv.weight"):
        replace(job, weights=tmp_path / "given.npz").train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("freeze", "words"), [
    (["conv", "deconv"], "freeze='deconv': the network has no such layer; it has: conv, scale"),
    (["*"], "leaves no layer to train"),
])  # fmt: skip
def test_freezing_what_is_not_there_or_everything_is_refused(
    job: multiseg.Job, tmp_path: Path, freeze: list[str], words: str
) -> None:
    with pytest.raises(SettingsError, match=words.replace("*", r"\*")):
        replace(job, freeze=freeze).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


# --- failures


def test_what_does_not_fit_the_dataset_is_said_before_anything_starts_and_at_once(
    job: multiseg.Job, tmp_path: Path
) -> None:
    bad = replace(
        job, batch_size=109, solver="sdg", lr_policy={"policy": "step", "gamma": None}, metric="f1", learning_rate=-1,
        val_interval=0, patience=0, threshold=300, augment={"turn": 1, "noise": -1}, weights="no.npz", freeze="conv",
    )  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        bad.train(tmp_path / "run", progress=False)
    for words in (
        "batch_size=109: is larger than the dataset, 108", "solver='sdg'", "gamma is missing", "metric='f1': choose one of",
        "learning_rate=-1", "val_interval=0", "patience=0", "threshold=300", "augment has no 'turn'", "noise=-1", "no.npz",
        "freeze='conv'",
    ):  # fmt: skip
        assert words in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_dataset_whose_shape_the_network_rejects_is_said_right_after_loading(
    fourth: str, job: multiseg.Job, tmp_path: Path, images: Path
) -> None:
    colour = multiseg.Dataset.create(
        tmp_path / "rgb", input=images / "input", target=images / "target", channels="RGB", seed=1
    )
    with pytest.raises(ModelError, match=r"takes images of one channel, not \(3, 32, 32\)"):
        replace(job, dataset=colour).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_disk_that_is_full_leaves_the_last_snapshot_and_says_why(job: multiseg.Job, tmp_path: Path) -> None:
    """A limit on the size of files, which the worker inherits: as on a full disk, writes fail half way."""
    big = replace(job, keep="all")
    whole = learned(big.train(tmp_path / "whole", progress=False))
    program = (
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "def limit(event):\n"
        "    if event['event'] == 'snapshot' and event['iteration'] == 14:\n"
        "        pid = next(int(c) for t in __import__('pathlib').Path('/proc/self/task').iterdir()"
        " for c in (t / 'children').read_text().split())\n"
        "        resource.prlimit(pid, resource.RLIMIT_FSIZE, (700, 700))\n"
        "import json, sys, multiseg\n"
        "multiseg.Job(**json.loads(sys.argv[1])).train(sys.argv[2], progress=limit)\n"
    )
    settings = json.dumps({**vars(big), "dataset": str(big.dataset)}, default=str)
    done = subprocess.run(
        [sys.executable, "-c", program, settings, str(tmp_path / "cut")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert (
        "epoch-0001-step-00006: cannot be written: " in done.stderr
        and "the last snapshot is epoch-0001-step-00003" in done.stderr
    )
    assert "File too large" in done.stderr
    left = snapshots.snapshots(tmp_path / "cut")
    assert left[-1].position.iteration == 14
    assert not list((tmp_path / "cut/snapshots").glob(".*"))
    with multiseg.Run.open(tmp_path / "cut") as run:
        assert run.summary["status"] == "failed"
        assert run.worker().call("get_weights")  # it opens
    assert learned(big.train(tmp_path / "cut", resume=True, progress=False)) == whole


def test_a_worker_that_dies_while_it_writes_leaves_the_last_snapshot(
    job: multiseg.Job, tmp_path: Path, own_processes: Callable[[], None]
) -> None:
    own_processes()  # the newest process is this training's then

    def cut_off(event: dict[str, Any]) -> None:
        if event["event"] == "epoch" and event["iteration"] == 11:
            os.kill(children(os.getpid())[-1], signal.SIGKILL)

    with pytest.raises((RunError, WorkerError), match="SIGKILL"):
        replace(job, keep="last").train(tmp_path / "run", progress=cut_off)
    assert [each.position.iteration for each in snapshots.snapshots(tmp_path / "run")] == [10]
