"""A dataset and runs that an earlier version wrote open, test, resume and compare as they did with it.

tests/data/make_old_runs.py wrote them; its arithmetic is exact, so the resumed weights are compared to the bit.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import multiseg
from helpers.lending import weights_of

ARCHIVE = Path(__file__).parents[1] / "data/old_runs.tar.gz"
TIMES = {"seconds", "val_seconds", "images_per_second"}


@dataclass
class Old:
    """The unpacked files and the numbers that the earlier version computed for a backend."""

    folder: Path
    backend: str
    expected: dict[str, Any]

    def run(self, name: str) -> Path:
        return self.folder / "runs" / self.backend / name

    def job(self, name: str, **settings: Any) -> multiseg.Job:
        (model,) = (self.run(name) / "model").iterdir()
        return multiseg.Job(
            dataset=self.folder / "dataset", backend=self.backend, model=model, epochs=2, batch_size=4,
            subtract_mean="none", lr_policy="fixed", loss="l2", threads=1, **settings,
        )  # fmt: skip


@pytest.fixture
def old(backend: str, tmp_path: Path) -> Old:
    """In a new place, as its dataset and runs may have been moved since."""
    with tarfile.open(ARCHIVE) as archive:
        # Python before 3.11.4, Debian 12's, has no filters; the archive is the project's own
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return Old(tmp_path, backend, json.loads((tmp_path / "expected.json").read_text())["runs"][backend])


def flat(run: multiseg.Run) -> dict[str, list[float]]:
    return {name: value.ravel().tolist() for name, value in weights_of(run).items()}


def untimed(history: list[dict[str, Any]], columns: Collection[str]) -> list[dict[str, Any]]:
    """The rows without times, and without columns that were added since."""
    return [{name: row[name] for name in columns if name not in TIMES} for row in history]


def test_an_old_dataset_opens(old: Old) -> None:
    dataset = multiseg.Dataset.open(old.folder / "dataset")
    assert dataset.content_hash == json.loads((old.folder / "expected.json").read_text())["content_hash"]
    assert (len(dataset.train), len(dataset.val)) == (8, 4)


def test_an_old_run_tests_as_before(old: Old) -> None:
    run = multiseg.Run.open(old.run("exact-finished"))
    columns = old.expected["history"][0]
    assert untimed(run.history, columns) == untimed(old.expected["history"], columns)
    assert [row["dice"] for row in run.history] == [None] * len(run.history)  # added since
    with run:
        one = run.test_one(old.folder / "images/input/00.png").array.ravel().tolist()
        outputs: list[list[float]] = []
        measures = run.test_db(
            old.folder / "dataset/val_db/features", each=lambda _, output: outputs.append(output.array.ravel().tolist())
        )
    assert one == old.expected["test_one"]
    assert outputs == old.expected["test_db_outputs"]
    for name, value in old.expected["test_db"].items():
        assert measures[name] == pytest.approx(value, rel=1e-6), name
    assert flat(multiseg.Run.open(old.run("exact-finished"))) == old.expected["weights"]


def test_an_old_interrupted_run_resumes_to_the_same_bits(old: Old) -> None:
    dampening = {"dampening": 0} if old.backend == "torch" else {}
    job = old.job(
        "exact-interrupted", solver="sgd", learning_rate=1.0,
        solver_options={"momentum": 0.5, "weight_decay": 0} | dampening,
    )  # fmt: skip
    run = job.train(old.run("exact-interrupted"), resume=True, progress=False)
    assert run.summary["status"] == "finished"
    assert flat(run) == old.expected["weights"]
    columns = old.expected["history"][0]
    for row, before in zip(untimed(run.history, columns), untimed(old.expected["history"], columns), strict=True):
        assert {k: v for k, v in row.items() if v is not None} == pytest.approx(
            {k: v for k, v in before.items() if v is not None}, rel=1e-6
        )


def test_an_old_interrupted_run_with_adam_and_noise_resumes_to_the_same(old: Old) -> None:
    """Its solver has two slots, and its noise is drawn from the run's seed: another seed comes to other weights."""
    job = old.job(
        "adam-interrupted", recipe="equal", solver="adam", learning_rate=0.125, augment={"flip": "both", "noise": 5}
    )
    resumed = flat(job.train(old.run("adam-interrupted"), resume=True, progress=False))
    assert set(resumed) == set(old.expected["adam_weights"])
    for name, values in old.expected["adam_weights"].items():
        assert resumed[name] == pytest.approx(values, abs=1e-5), name  # weights begin at 2 and move by 0.125 a step


def test_old_runs_are_compared(old: Old) -> None:
    runs = [old.run("exact-finished"), old.run("adam-interrupted")]
    comparison = multiseg.compare(runs, dataset=old.folder / "dataset")
    page = comparison.to_html(old.folder / "page.html").read_text()
    assert "exact-finished" in page and "adam-interrupted" in page
    finished, interrupted = comparison.to_dict()["runs"]
    assert finished["final"]["val_loss"] == old.expected["history"][-1]["val_loss"]
    assert (finished["epoch"], interrupted["epoch"]) == (2, 1)
