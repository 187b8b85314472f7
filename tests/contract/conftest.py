"""A loaded network in its worker, for each backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from multiseg import backend as registry
from multiseg.job import Job
from multiseg.training import network_spec
from multiseg.worker.client import Worker

Loaded = Callable[..., Worker]
Trained = Callable[[str], Path]


@pytest.fixture
def load(backend: str, dataset: Any) -> Iterator[Loaded]:
    """load(**settings of a Job): a worker with that job's network in it, 2 threads."""
    workers: list[Worker] = []

    def loaded(predict_only: bool = False, **settings: Any) -> Worker:
        found = Job(dataset=dataset, backend=backend, **{"seed": 3, "threads": 2, **settings}).resolve()
        spec = network_spec(found, dataset).to_json()
        worker = Worker(registry.get(backend), threads=found.threads)
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
