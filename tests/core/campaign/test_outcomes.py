"""The file of a campaign's outcomes is continued, also after a line that was not completely written."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiseg.campaign.campaign import fuzz
from multiseg.campaign.outcome import NAME, Outcome, Outcomes
from multiseg.campaign.page import render
from multiseg.campaign.result import Campaign
from multiseg.errors import SettingsError


def test_outcomes_are_read_back(tmp_path: Path) -> None:
    outcomes = Outcomes(1, tmp_path)
    rows = [
        Outcome(0, "torch", "agrees", comparisons=20, types=("Conv", "Relu"), loss="l2", solver="adam", seconds=0.5),
        Outcome(1, "torch", "differs", "layer 'a' differs", part="parts/1_torch", layers=("Conv",), alone=True),
        Outcome(1, "caffe", "crash", "killed by SIGSEGV"),
    ]
    for row in rows:
        outcomes.add(row)
    with (tmp_path / NAME).open("a") as file:
        file.write('{"number": 2, "backend": "to')
    again = Outcomes(1, tmp_path)
    assert again.rows == rows
    assert again.done == {(0, "torch"), (1, "torch"), (1, "caffe")}
    assert [row.number for row in again.alarms] == [1, 1]
    again.add(Outcome(2, "torch", "partly"))
    assert Outcomes(1, tmp_path).rows[-1].number == 2


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", "no\n", '{"seed": 1}\n{"number": "a"}\n'])
def test_a_foreign_file_is_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(SettingsError, match=NAME):
        Outcomes(1, tmp_path)


def test_a_folder_of_another_seed_is_an_error(tmp_path: Path) -> None:
    Outcomes(1, tmp_path)
    with pytest.raises(SettingsError, match="another campaign"):
        Outcomes(2, tmp_path)


def test_numbers_are_checked_first() -> None:
    with pytest.raises(SettingsError, match="networks=-1"):
        fuzz(-1, backends=[])


def test_the_page_lists_alarms_and_counts() -> None:
    outcomes = Outcomes(7)
    outcomes.add(Outcome(0, "torch", "agrees", comparisons=1200, types=("Conv", "Relu")))
    outcomes.add(
        Outcome(
            1,
            "torch",
            "differs",
            "layer '<b>' differs",
            comparisons=9,
            types=("Conv",),
            part="parts/1_torch",
            layers=("Conv",),
        )
    )
    text = render(Campaign(outcomes, ("torch",), 2))
    assert "1 alarm<" in text and "1,209 comparisons" in text and "layer &#39;&lt;b&gt;&#39; differs" in text
    assert 'href="parts/1_torch/README.md"' in text
    assert "<tr><td>Conv</td><td>2</td>" in text and "<tr><td>Gemm</td><td>0</td>" in text
