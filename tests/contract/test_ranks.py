"""One training over several processes of torchrun, on this machine: the same as by one process, to rounding."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
from lending import weights_of
from processes import children, gone

import multiseg
from multiseg.errors import ModelError, SettingsError, TrainingStopped
from multiseg.ranks import Ranks, current
from multiseg.stopping import Stop

pytestmark = pytest.mark.needs("torch")

PROGRAM = Path(__file__).parent / "ranks_program.py"
PLAIN = small_models.TORCH.replace("self.drop1(self.conv1(x).relu())", "self.conv1(x).relu()")
AUGMENT = {"flip": "both", "quarter_turns": True, "noise": 5}
STEPS = 50  # of each training that is compared, or more


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    """37 pairs for training, 4 for validation."""
    folder = tmp_path_factory.mktemp("odd")
    images = multiseg.create_images(folder / "images", count=41, seed=1)
    return multiseg.Dataset.create(folder / "dataset", input=images / "input", target=images / "target", seed=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Network files: small.py; unused.py, with a layer that is not used; dropout.py; norm.py, with batch normalisation."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "small.py").write_text(PLAIN)
    layer = "self.drop1 = nn.Dropout(0.5)"
    (folder / "unused.py").write_text(PLAIN.replace(layer, "self.spare = nn.Conv2d(1, 1, 3)"))
    (folder / "dropout.py").write_text(small_models.TORCH)
    norm = PLAIN.replace(layer, "self.norm = nn.BatchNorm2d(8)").replace("self.conv1(x).relu()", "self.norm(self.conv1(x))")
    (folder / "norm.py").write_text(norm)
    return folder


@pytest.fixture(scope="module")
def jobs(odd: multiseg.Dataset, files: Path) -> dict[str, multiseg.Job]:
    """Trainings of 50 steps and more, over epochs that end with a smaller batch."""
    job = multiseg.Job(
        dataset=odd.path, model=files / "small.py", seed=5, threads=1, loss="l2", lr_policy="fixed", keep="last",
        device="cpu",
    )  # fmt: skip
    adam: dict[str, Any] = {"solver": "adam", "learning_rate": 1e-2}
    return {
        # 4 steps an epoch, the last one of a single image: none for the second rank
        "sgd": replace(job, epochs=13, batch_size=12, learning_rate=1e-6, augment=AUGMENT),
        # 5 steps an epoch, the last one of 5 images: 3 and 2
        "adam": replace(job, epochs=10, batch_size=8, **adam),
        # 3 updates an epoch, of 16, 16 and 5 images: 3 and 2
        "accumulate": replace(job, epochs=17, batch_size=8, accumulate=2, **adam),
        # 7 updates an epoch, of which the last one is of one image, and a layer that is never used
        "unused": replace(job, model=files / "unused.py", epochs=8, batch_size=2, accumulate=3, **adam),
        "fcn": replace(job, model=None, epochs=10, batch_size=8, **{**adam, "learning_rate": 1e-3}),
    }


def arguments(folder: Path, jobs: list[tuple[multiseg.Job, Path, bool]]) -> list[str]:
    """Of the program."""
    plain = [[vars(job), str(run), resume] for job, run, resume in jobs]
    return [str(PROGRAM), str(folder), json.dumps(plain, default=str)]


def torchrun(size: int = 2) -> list[str]:
    """The command that starts so many ranks on this machine."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size), "--monitor-interval", "0.1",
    ]  # fmt: skip


def together(folder: Path, jobs: list[tuple[multiseg.Job, Path, bool]]) -> list[list[list[str]]]:
    """Train jobs by two ranks, one after the other; what became of each job, for each rank."""
    done = subprocess.run([*torchrun(), *arguments(folder, jobs)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]
    return [list(each) for each in zip(*ranks, strict=True)]


FINISHED = [["finished", "finished"]] * 2


@pytest.fixture(scope="module")
def runs(jobs: dict[str, multiseg.Job], tmp_path_factory: pytest.TempPathFactory) -> dict[str, multiseg.Run]:
    """Each job's run by two ranks, all of them in one program."""
    folder = tmp_path_factory.mktemp("together")
    outcomes = together(folder, [(job, folder / name, False) for name, job in jobs.items()])
    assert outcomes == [FINISHED] * len(jobs)
    return {name: multiseg.Run.open(folder / name) for name in jobs}


def difference(one: multiseg.Run, other: multiseg.Run) -> float:
    """The largest of any weight, as a part of how far the layer's weights have moved at most."""
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max() / np.abs(first[name]).max()) for name in first)


@pytest.mark.parametrize("name", ["sgd", "adam", "accumulate", "unused", "fcn"])
def test_two_ranks_train_as_one_process(
    jobs: dict[str, multiseg.Job], runs: dict[str, multiseg.Run], tmp_path: Path, name: str
) -> None:
    job, two = jobs[name], runs[name]
    one = job.train(tmp_path / "one", progress=False)
    halves = replace(job, batch_size=job.batch_size // 2, accumulate=job.accumulate * 2)
    rounding = difference(halves.train(tmp_path / "halves", progress=False), one)
    print(name, rounding, difference(two, one), [(a["train_loss"], b["train_loss"], b["iteration"]) for a, b in zip(one.history, two.history)][-1])
