"""A loaded network in its worker, for each backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lending
import numpy as np
import pytest
from lending import lend
from linear_training import SIZE
from PIL import Image

from multiseg.dataset import Dataset
from multiseg.job.job import Job
from multiseg.training.preparation import network_spec
from multiseg.worker.client import Worker

Loaded = Callable[..., Worker]
Trained = Callable[[str], Path]


# modules about the processes themselves
ALL_NEW = ("test_contract", "test_worker", "test_run_shared")


@pytest.fixture(scope="module", autouse=True)
def lent_workers(request: pytest.FixtureRequest) -> Iterator[None]:
    """As in tests/conftest.py, for all tests here."""
    with nullcontext() if request.module.__name__ in ALL_NEW else lending.everywhere():
        yield


@pytest.fixture
def own_processes(lent_workers: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """own_processes(): from now on every training has a new process, and no other one waits."""

    def begin() -> None:
        lending.end()
        monkeypatch.setattr("multiseg.worker.pool.start", Worker)

    return begin


@pytest.fixture
def load(backend: str, dataset: Any) -> Iterator[Loaded]:
    """load(**settings of a Job): a worker with that job's network in it, 2 threads."""
    workers: list[Worker] = []

    def loaded(predict_only: bool = False, **settings: Any) -> Worker:
        found = Job(dataset=dataset, backend=backend, **{"seed": 3, "threads": 2, **settings}).resolve()
        spec = network_spec(found, dataset).to_json()
        worker = lend(backend, found.threads)
        workers.append(worker)
        worker.described = worker.call("load", spec={**spec, "solver": None} if predict_only else spec)
        return worker

    yield loaded
    for worker in workers:
        worker.close()


@pytest.fixture(scope="session")
def trained(dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """trained(backend): folder of a run of one epoch, the same for every test that only looks at it."""
    folder = tmp_path_factory.mktemp("trained")

    def run(backend: str) -> Path:
        if not (folder / backend).exists():
            Job(dataset=dataset, backend=backend, epochs=1, seed=2, threads=2).train(folder / backend, progress=False)
        return folder / backend

    return run


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """14 pairs of 8x8 images in colour, noise, 4 of them for validation."""
    folder, draw = tmp_path_factory.mktemp("coloured"), np.random.default_rng(8)
    for kind in ("input", "target"):
        (folder / kind).mkdir()
        for index in range(14):
            picture = draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8) // np.array([1, 2, 4], np.uint8)
            Image.fromarray(picture).save(folder / kind / f"{index}.png")
    return Dataset.create(folder / "dataset", input=folder / "input", target=folder / "target", val_percent=30, seed=1)
