"""Several jobs from one file, and training at the command line, over a backend in NumPy."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.errors import SettingsError
from multiseg.jobs.file import read_jobs
from multiseg.jobs.jobs import train_jobs

FILE = """
runs = "trained"
parallel = 2

[defaults]
dataset = {dataset!r}
backend = "numpy"
epochs = 2
solver = "adam"
seed = 1

[[job]]
name = "rates"
learning_rate = [1e-2, 1e-3]
freeze = ["conv"]

[[job]]
seed = [1, 2]
lr_policy = [{{policy = "step", step = 25}}, "fixed"]
"""


@pytest.fixture
def file(fourth: str, dataset: Any, tmp_path: Path) -> Path:
    """A file of six jobs."""
    path = tmp_path / "jobs.toml"
    path.write_text(FILE.format(dataset=str(dataset.path)))
    return path


def multiseg_command(*arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "multiseg.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **settings)


def test_lists_stand_for_every_combination(file: Path) -> None:
    found = read_jobs(file)
    assert (found.parallel, found.runs) == (2, file.parent / "trained")
    assert list(found.jobs) == [
        "rates_learning_rate=0.01", "rates_learning_rate=0.001",
        "numpy_seed=1_lr_policy=1", "numpy_seed=1_lr_policy=fixed", "numpy_seed=2_lr_policy=1", "numpy_seed=2_lr_policy=fixed",
    ]  # fmt: skip
    second = found.jobs["rates_learning_rate=0.001"]
    assert (second.learning_rate, second.freeze, second.epochs, second.seed) == (1e-3, ["conv"], 2, 1)
    assert found.jobs["numpy_seed=2_lr_policy=1"].lr_policy == {"policy": "step", "step": 25}


@pytest.mark.parametrize(("line", "values"), [
    ("mean = [104, 117, 123]", [[104, 117, 123]]),
    ("mean = [[50], [104, 117, 123]]", [[50], [104, 117, 123]]),
    ("divide_std = [50.0]", [[50.0]]),
    ("divide_std = ['dataset', [50.0]]", ["dataset", [50.0]]),
    ("crop = [96, 128]", [[96, 128]]),
    ("crop = [[96, 128], [64]]", [[96, 128], [64]]),
    ("crop = ['96', '96x128', 'none']", ["96", "96x128", "none"]),
    ("class_weights = [1, 2.5]", [[1, 2.5]]),
    ("class_weights = ['balanced', [1, 2.5]]", ["balanced", [1, 2.5]]),
    ("freeze = ['a', 'b']", [["a", "b"]]),
    ("freeze = []", [[]]),
    ("outputs = [['a'], ['b']]", [["a"], ["b"]]),
    ("val_crop = ['centre', 'none']", ["centre", "none"]),
])  # fmt: skip
def test_settings_that_are_lists_need_a_list_of_alternatives(tmp_path: Path, line: str, values: list[Any]) -> None:
    (tmp_path / "jobs.toml").write_text(f"[[job]]\ndataset = 'x'\n{line}\n")
    setting = line.split(" = ")[0]
    assert [getattr(job, setting) for job in read_jobs(tmp_path / "jobs.toml").jobs.values()] == values


@pytest.mark.parametrize(("text", "words"), [
    ("[defaults]\nepochs = []\n[[job]]\ndataset = 'x'", ["[[job]] 1: epochs=[]: lists no value for a job"]),
    ("[[job]]\nepoch = 3\ndatset = 'x'", ["unknown key 'epoch'", "unknown key 'datset'", "epochs"]),
    ("[defaults]\ntensorboard = true\n[[job]]\ndataset = 'x'", ["unknown key 'tensorboard'; it is for one training"]),
    ("[[job]]\ndataset = 'x'\nparallel = 2", ["unknown key 'parallel'; it is for all jobs"]),
    ("[defaults]\nepochs = 2", ["needs a [[job]] table"]),
    ("[[job]\n", ["is not TOML"]),
    ("paralel = 1\nparallel = 0\n[[job]]\ndataset = 'x'", ["unknown key 'paralel'", "parallel=0"]),
    ("[[job]]\ndataset = 'x'\n[[job]]\ndataset = 'y'", ["two jobs are called 'torch'"]),
    ("[[job]]\ndataset = 5", ["[[job]] 1: dataset=5: must be a path, as text"]),
    ("[defaults]\ndataset = 'x'\n[[job]]\n[[job]]\nmodel = ['fcn', 5]", ["[[job]] 2: model=['fcn', 5]: must be a path"]),
    ("[[job]]\ndataset = 'x'\nweights = true", ["weights=True: must be a path"]),
    ("[[job]]\nepochs = 1", ["job 'torch' has no dataset"]),
])  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "jobs.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_jobs(tmp_path / "jobs.toml")
    assert all(word in str(caught.value) for word in [*words, "jobs.toml"])


def test_bad_settings_of_all_jobs_are_said_before_any_starts(fourth: str, dataset: Any, tmp_path: Path) -> None:
    good = multiseg.Job(dataset=dataset, backend=fourth, epochs=1)
    with pytest.raises(SettingsError) as caught:
        train_jobs({"a": good, "b": replace(good, epochs=0), "c": replace(good, backend="nil")}, tmp_path / "runs")
    assert "job 'b': epochs=0" in str(caught.value) and "job 'c': no backend is called 'nil'" in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_the_command_trains_all_and_skips_what_is_finished(file: Path) -> None:
    first = multiseg_command("train", file)
    assert first.returncode == 0, first.stderr
    folders = sorted(path.name for path in (file.parent / "trained").iterdir())
    assert folders == sorted(read_jobs(file).jobs)
    assert first.stdout.count(": finished") == 6
    frozen = multiseg.Run.open(file.parent / "trained" / folders[-1])
    assert frozen.settings["freeze"] == ["conv"] and frozen.settings["threads"] == max(
        1, len(os.sched_getaffinity(0)) // 2
    )
    again = multiseg_command("train", file, "--json")
    assert again.returncode == 0
    events = [json.loads(line) for line in again.stdout.splitlines()]
    assert [event["event"] for event in events] == ["skipped"] * 6


def test_one_that_fails_leaves_the_others_alone_and_the_status_is_1(file: Path) -> None:
    (file.parent / "bad.json").write_text('{"numpy network": {}}')
    file.write_text(file.read_text() + '\n[[job]]\nname = "bad"\nmodel = "bad.json"\n')
    done = multiseg_command("train", file, "--run", file.parent / "elsewhere")
    assert done.returncode == 1
    assert done.stdout.count(": finished") == 6
    assert "bad.json: is no NumPy network: 'dropout'" in done.stdout
    assert not (file.parent / "elsewhere/bad").exists()


@pytest.mark.parametrize("parallel", [0, -1, 1.5, True, None, "2"])
def test_the_number_of_concurrent_jobs_is_checked_before_any_starts(parallel: Any, fourth: str, tmp_path: Path) -> None:
    job = multiseg.Job(dataset=tmp_path / "none", backend=fourth)
    with ThreadPoolExecutor(1) as executor:
        for pool in (None, executor):
            with pytest.raises(SettingsError, match=rf"parallel={parallel!r}: must be a whole number from 1"):
                train_jobs({"a": job}, tmp_path / "runs", parallel, pool)
        with pytest.raises(SettingsError, match=r"^executor and scheduler: specify one"):
            train_jobs({"a": job}, tmp_path / "runs", executor=executor, scheduler="tcp://127.0.0.1:1")


def test_jobs_run_in_any_executor_of_concurrent_futures(fourth: str, dataset: Any, tmp_path: Path) -> None:
    job = multiseg.Job(dataset=dataset, backend=fourth, epochs=1, seed=1)
    jobs = {"a": job, "b": replace(job, seed=2)}
    said = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        outcomes = train_jobs(jobs, tmp_path, 2, executor, lambda name, event: said.append((name, event["event"])))
    assert [(each.name, each.status) for each in outcomes] == [("a", "finished"), ("b", "finished")]
    assert sorted(said) == [("a", "finished"), ("b", "finished")]
    assert multiseg.Run.open(tmp_path / "b").settings["seed"] == 2


def begun(*arguments: object) -> subprocess.Popen[str]:
    """``multiseg train ... --json``, whose first step is done."""
    program = subprocess.Popen(
        [sys.executable, "-m", "multiseg.cli", "train", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert program.stdout is not None
    for line in program.stdout:
        if json.loads(line)["event"] == "step":
            break
    return program


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_says_the_very_command_to_go_on(
    fourth: str, dataset: Any, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "a run"
    arguments = ["--dataset", dataset.path, "--backend", fourth, "--run", run, "--epochs", 40, "--seed", 1]
    program = begun(*arguments)
    program.send_signal(number)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 128 + number
    assert "Traceback" not in said and number.name in said
    command = shlex.split(said.splitlines()[-1])
    assert command == ["multiseg", "train", *map(str, arguments), "--json", "--resume"]
    whole = multiseg_command("train", *arguments[:4], "--run", tmp_path / "whole", *arguments[6:])
    assert multiseg_command(*command[1:]).returncode == 0 == whole.returncode
    cut, undisturbed = (multiseg.Run.open(path) for path in (run, tmp_path / "whole"))
    assert [row["train_loss"] for row in cut.history] == [row["train_loss"] for row in undisturbed.history]


def test_a_stopped_file_of_jobs_goes_on_by_the_same_command(file: Path) -> None:
    file.write_text(file.read_text().replace("epochs = 2", "epochs = 20"))
    program = begun(file)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 130 and "the same command resumes" in said
    stopped = [path for path in (file.parent / "trained").iterdir() if multiseg.Run.open(path).snapshot]
    assert 1 <= len(stopped) <= 2
    done = multiseg_command("train", file)
    assert done.returncode == 0 and done.stdout.count(": finished") == 6, done.stdout


@pytest.mark.parametrize(("arguments", "words"), [
    (["--backend", "torch"], "Missing option '--dataset'"),
    (["jobs.toml", "--epochs", "3"], "--epochs cannot be combined with a file of jobs"),
    (["--dataset", "x", "--run", "y", "--augment", "flip"], "'flip' is not NAME=VALUE"),
])  # fmt: skip
def test_bad_usage_is_one_line_and_status_2(arguments: list[str], words: str) -> None:
    done = multiseg_command("train", *arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_options_become_the_jobs_settings(fourth: str, dataset: Any, tmp_path: Path) -> None:
    done = multiseg_command(
        "train", "--dataset", dataset.path, "--backend", fourth, "--run", tmp_path / "run", "--epochs", 1,
        "--lr-policy", "multistep", "--lr-option", "stepvalues=20,60", "--lr-option", "warmup=10", "--augment", "flip=both",
        "--augment", "quarter_turns=true", "--augment", "noise=2", "--freeze", "conv", "--val-interval", 0.5, "--metric", "iou",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = multiseg.Run.open(tmp_path / "run").settings
    policy = {"policy": "multistep", "stepvalues": [20.0, 60.0], "gamma": 0.5, "warmup": 10.0}
    assert settings["lr_policy"] == policy and settings["metric"] == "iou" and settings["freeze"] == ["conv"]
    assert settings["augment"] == {"flip": "both", "quarter_turns": True, "noise": 2.0}
    assert settings["val_interval"] == 0.5
