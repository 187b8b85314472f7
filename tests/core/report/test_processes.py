"""A comparison of many runs keeps few processes of backends, and each run still has its own network in one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from multiseg import backend as registry
from multiseg.errors import MultisegError
from multiseg.report.page import MOST_PROCESSES
from multiseg.run.processes import Processes
from multiseg.worker import pool


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that are started in the test."""
    workers: list[Any] = []
    start = pool.start

    def counted(*arguments: Any, **options: Any) -> Any:
        workers.append(start(*arguments, **options))
        return workers[-1]

    monkeypatch.setattr(pool, "start", counted)
    return workers


def test_many_runs_share_few_processes(fourth: str, dataset: Any, tmp_path: Path, started: list[Any]) -> None:
    runs, expected = [], []
    features = dataset.val[0][0][np.newaxis]
    for seed in (1, 2, 3):
        with multiseg.Job(dataset=dataset, backend=fourth, epochs=1, seed=seed).train(tmp_path / f"{seed}") as run:
            expected.append(run.predict(features))
            runs.append(run)
    assert not np.array_equal(expected[0], expected[1])
    started.clear()
    processes = Processes(2)
    for run in runs:
        run.processes = processes
    for _ in range(2):
        for run, output in zip(runs, expected, strict=True):
            np.testing.assert_array_equal(run.predict(features), output)
            assert len(started) <= 2
    kept = runs[0].worker()
    runs[2].worker().close()  # an ended one does not count
    runs[1].predict(features)
    assert runs[0].worker() is kept and len(started) == 3
    for run in runs:
        run.close()

    started.clear()
    folders = [tmp_path / "1", tmp_path / "2"]
    for number in range(MOST_PROCESSES):
        shutil.copytree(tmp_path / "3", tmp_path / f"copy{number}")
        folders.append(tmp_path / f"copy{number}")
    comparison = multiseg.compare(folders, images=2)
    comparison.to_html(tmp_path / "page.html")
    assert comparison.left_out == {}
    assert len(started) == MOST_PROCESSES < len(folders)
    assert all(worker.closed for worker in started)


@pytest.mark.parametrize("shared", [False, True])
def test_a_process_may_be_started_before_it_is_used(
    fourth: str, dataset: Any, tmp_path: Path, started: list[Any], shared: bool
) -> None:
    with multiseg.Job(dataset=dataset, backend=fourth, epochs=1, seed=1).train(tmp_path / "run") as run:
        expected = run.predict(dataset.val[0][0][np.newaxis])
    started.clear()
    with multiseg.Run.open(tmp_path / "run") as run:
        run.processes = Processes(1) if shared else None
        run.begin()
        run.begin()
        assert len(started) == 1 and run.worker() is started[0]
        np.testing.assert_array_equal(run.predict(dataset.val[0][0][np.newaxis]), expected)
        run.begin()
        started[0].close()
        np.testing.assert_array_equal(run.predict(dataset.val[0][0][np.newaxis]), expected)
        assert len(started) == 2
    with multiseg.Run.open(tmp_path / "run") as run:
        run.begin()
    assert started[2].closed


def test_a_process_that_cannot_start_is_reported_where_it_is_used(
    fourth: str, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with multiseg.Job(dataset=dataset, backend=fourth, epochs=1, seed=1).train(tmp_path / "run"):
        pass
    monkeypatch.setenv(registry.get(fourth).python_variable, str(tmp_path / "absent"))
    with multiseg.Run.open(tmp_path / "run") as run:
        run.begin()
        with pytest.raises(MultisegError, match="absent"):
            run.worker()
