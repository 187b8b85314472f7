"""What others can read of a training: TensorBoard, tables, events, the progress on a terminal."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet
from rich.console import Console

import multiseg
from multiseg.errors import SettingsError, TrainingStopped
from multiseg.run.names import PROGRESS
from multiseg.training.progress import Bar
from multiseg.training.signals import Stop

READER = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
log = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0})
log.Reload()
scalars = {tag: [[each.step, each.value] for each in log.Scalars(tag)] for tag in log.Tags()["scalars"]}
images = {tag: [[each.step, each.encoded_image_string.hex()] for each in log.Images(tag)] for tag in log.Tags()["images"]}
print(json.dumps(scalars | images))
"""


def read_by_tensorboard(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Each tag's steps and values, of images the bytes as hexadecimal digits, as TensorBoard's own reader has them.

    It runs in a process of its own, as it may import TensorFlow.
    """
    done = subprocess.run([sys.executable, "-c", READER, folder], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {tag: [(step, value) for step, value in points] for tag, points in json.loads(done.stdout).items()}


@pytest.fixture
def job(fourth: str, dataset: Any) -> multiseg.Job:
    return multiseg.Job(dataset=dataset, backend=fourth, epochs=2, seed=1, solver="adam", learning_rate=1e-2)


def test_tensorboard_reads_every_step_and_row_once_after_a_resume_too(job: multiseg.Job, tmp_path: Path) -> None:
    stop, losses = Stop(), {}

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            losses[event["iteration"]] = event["loss"]
            if event["iteration"] == 17:
                stop.ask()

    with pytest.raises(TrainingStopped):
        job.train(tmp_path / "run", progress=listen, tensorboard=True, stop=stop)
    run = job.train(tmp_path / "run", resume=True, progress=listen, tensorboard=True)
    found = read_by_tensorboard(run.path / "tensorboard")
    assert [step for step, _ in found["step/loss"]] == list(range(1, 29))
    assert [value for _, value in found["step/loss"]] == pytest.approx([losses[i] for i in range(1, 29)], rel=1e-6)
    assert [value for _, value in found["step/rate"]][::10] == pytest.approx([1e-2, 1e-3, 1e-4])  # steps of 10 of 28
    for key in ("train_loss", "val_loss", "l1", "iou"):
        rows = [(row["iteration"], row[key]) for row in run.history if row[key] is not None]
        assert found[f"epoch/{key}"] == [(step, pytest.approx(value, rel=1e-6)) for step, value in rows]
    for path in (run.path / "pictures").iterdir():
        steps = [step for step, _ in found[f"pictures/{path.stem}"]]
        assert steps == (
            [0, 14, 28] if path.stem.endswith("output") else [0, 28]
        )  # inputs: once in each of two trainings
        assert found[f"pictures/{path.stem}"][-1][1] == path.read_bytes().hex()


def test_writing_the_log_needs_neither_tensorboard_nor_a_framework(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom multiseg.training.tensorboard import Log\n"
        "unwanted = 'torch', 'tensorflow', 'keras', 'caffe', 'tensorboard', 'tensorboardX'\n"
        "sys.modules.update(dict.fromkeys(unwanted))\n"
        f"with Log(Path({str(tmp_path / 'log')!r})) as log: log({{'event': 'step', 'iteration': 1, 'loss': 1.5, 'rate': 1.0}})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert read_by_tensorboard(tmp_path / "log") == {"step/loss": [(1, 1.5)], "step/rate": [(1, 1.0)]}


def test_the_history_is_exported_as_csv_and_parquet(job: multiseg.Job, tmp_path: Path) -> None:
    run = job.train(tmp_path / "run", progress=False)
    run.export_history(tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as file:
        assert [float(row["l1"]) for row in csv.DictReader(file)] == [row["l1"] for row in run.history]
    command = [sys.executable, "-m", "multiseg.cli", "export-history", run.path, "-o", tmp_path / "history.parquet"]
    subprocess.run(command, check=True, timeout=60)
    table = parquet.read_table(tmp_path / "history.parquet")
    assert table.to_pylist() == run.history
    assert str(table.schema.field("iteration").type) == "int64" and str(table.schema.field("l1").type) == "double"
    with pytest.raises(SettingsError, match=r"use the extension .csv or .parquet"):
        run.export_history(tmp_path / "history.xlsx")


def test_the_run_folder_tells_what_happened_when(job: multiseg.Job, tmp_path: Path) -> None:
    run = job.train(tmp_path / "run", progress=False)
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "epoch", "epoch", "snapshot", "epoch", "snapshot", "end"]
    assert all(event["time"] for event in events)
    assert {path.name for path in run.path.iterdir()} == {
        "job.json", "history.csv", "summary.json", "events.jsonl", "model", "snapshots", "worker.log", ".lock",
        "pictures", ".progress.json",
    }  # fmt: skip


def test_the_progress_is_that_of_the_last_step_however_short_the_epochs(job: multiseg.Job, tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = []
    seen: list[tuple[int, int]] = []

    def listen(event: dict[str, Any]) -> None:
        state = json.loads((tmp_path / "run" / PROGRESS).read_text())
        if event["event"] == "step":
            steps.append(event)
        elif event["event"] == "epoch":
            seen.append((state["iteration"], state["epoch"]))

    job.train(tmp_path / "run", progress=listen)
    assert seen == [(0, 0), (14, steps[13]["epoch"]), (28, steps[27]["epoch"])]
    state = json.loads((tmp_path / "run" / PROGRESS).read_text())
    last = [steps[-1][key] for key in ("iteration", "epoch", "loss", "rate")]
    assert [state[key] for key in ("iteration", "epoch", "loss", "learning_rate")] == last
    assert state["ended"]


def test_the_bar_shows_loss_rate_speed_and_time_left(job: multiseg.Job, tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=160, color_system=None)
    with Bar(console) as bar:
        job.train(tmp_path / "run", progress=bar)
    shown = text.getvalue()
    for words in ("NumPy epoch 2/2", "28/28", "loss ", "rate 0.001", "images/s", "left 0:00:00"):
        assert words in shown
    assert "warning" not in shown


def test_weights_that_fit_in_part_are_a_warning_on_the_terminal(job: multiseg.Job, tmp_path: Path) -> None:
    np.savez(
        tmp_path / "w.npz", **{"conv.weight": np.ones((1, 1, 3, 3), np.float32), "conv.bias": np.ones(2, np.float32)}
    )
    text = io.StringIO()
    with Bar(Console(file=text, width=80, color_system=None)) as bar:  # no terminal: a log file, say
        replace(job, weights=tmp_path / "w.npz").train(tmp_path / "run", progress=bar)
    assert (
        "warning: 3 of 4 parameters keep their initial values, as the weights that training starts from do not fit them (not in "
        "the source: scale.weight, scale.bias; of another shape there: conv.bias)\n"
    ) in text.getvalue()


def test_the_bar_fits_80_columns_with_nothing_cut_off(job: multiseg.Job, tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, color_system=None)
    with Bar(console) as bar:
        bar(
            {
                "event": "start",
                "backend": "TensorFlow",
                "epochs": 150,
                "iterations": 42000,
                "iteration": 0,
                "batch_size": 16,
            }
        )
        bar({"event": "step", "epoch": 149, "loss": 12345.678, "rate": 1e-05, "iteration": 41999})
    shown = text.getvalue()
    assert "loss 1.235e+04" in shown and "TensorFlow epoch 149/150" in shown
    assert "…" not in shown
