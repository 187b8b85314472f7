"""A cluster whose workers, scheduler and program are killed all the time; ``python -m helpers.chaos`` is the long form."""

from __future__ import annotations

from pathlib import Path

import pytest

import multiseg
from helpers.chaos import Chaos


@pytest.mark.nightly
def test_jobs_end_once_and_as_local_ones(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    result = Chaos(tmp_path, dataset.path, jobs=6, seed=1).run(seconds=60, pause=5)
    print(f"chaos on the cluster: {result}")
    assert result.problems == []
    assert set(result.kills) == {"worker", "scheduler", "program"}
