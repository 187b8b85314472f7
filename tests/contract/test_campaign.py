"""A hundred random networks agree with float64: see `multiseg fuzz` for as many as time permits."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiseg import campaign

SEED, SHARE = 1, 34
PLACES = {"caffe": 0, "tensorflow": 1, "torch": 2}


@pytest.mark.nightly
def test_a_thousand_random_networks_agree(backend: str, tmp_path: Path) -> None:
    result = campaign.fuzz(1000, SEED, [backend], tmp_path)
    assert [(row.number, row.verdict, row.words) for row in result.outcomes.alarms] == []


def test_random_networks_agree(backend: str, tmp_path: Path) -> None:
    first = SHARE * PLACES[backend]
    result = campaign.fuzz(first + SHARE, SEED, [backend], tmp_path, first=first)
    assert len(result.outcomes.rows) == SHARE
    assert [(row.number, row.verdict, row.words) for row in result.outcomes.alarms] == []
    assert result.count(backend, "agrees") > SHARE / 2
    assert "No alarm" in (tmp_path / campaign.PAGE).read_text()
    # the same call has nothing left to do
    assert campaign.fuzz(first + SHARE, SEED, [backend], tmp_path, first=first).checked == 0
