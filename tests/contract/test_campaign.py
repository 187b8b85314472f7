"""Random networks agree with float64: see `multiseg fuzz` for as many as time permits."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiseg import campaign

SEED = 1
# TensorFlow takes longer than the others
NUMBERS = {"caffe": range(34), "tensorflow": range(34, 51), "torch": range(68, 102)}


@pytest.mark.nightly
def test_a_thousand_random_networks_agree(backend: str, tmp_path: Path) -> None:
    result = campaign.fuzz(1000, SEED, [backend], tmp_path)
    assert unexplained(result) == []


def unexplained(result: campaign.Campaign) -> list[tuple[int, str, str]]:
    """Numbers, verdicts and words of the alarms: of all but the faults in the ledger."""
    return [(row.number, row.verdict, row.words) for row in result.outcomes.alarms]


def test_random_networks_agree(backend: str, tmp_path: Path) -> None:
    numbers = NUMBERS[backend]
    first, end, share = numbers.start, numbers.stop, len(numbers)
    result = campaign.fuzz(end, SEED, [backend], tmp_path, first=first)
    assert len(result.outcomes.rows) == share
    assert unexplained(result) == []
    assert result.count(backend, "agrees") > share / 2
    assert f"{share} random networks of seed {SEED}" in (tmp_path / campaign.PAGE).read_text()
    # the same call has nothing left to do
    assert campaign.fuzz(end, SEED, [backend], tmp_path, first=first).checked == 0


# Networks that differed once: images with unequal numbers of labels that count, predicted one by one for their batch statistics;
# batch statistics that the output hides; a convolution that PyTorch computes wrongly in NHWC; an ELU that TensorFlow rounds
# otherwise in training; factors of a vector, which were not read in TensorFlow; a sum over channels, read as a sum of one value;
# TensorFlow's output and layers of two runs, which round otherwise; a maximum that TensorFlow takes for a leaky ReLU
DIFFERED = [(21, 72), (21, 217), (31, 5715), (32, 2291), (31, 413), (31, 1263), (31, 1586), (31, 8998), (31, 206)]


@pytest.mark.parametrize(("seed", "number"), DIFFERED)
def test_networks_that_differed_agree(seed: int, number: int, backend: str, tmp_path: Path) -> None:
    result = campaign.fuzz(number + 1, seed, [backend], tmp_path, first=number)
    assert unexplained(result) == []
