"""Backends beside seeds: runs whose figures are written by hand, and what follows from them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import multiseg
from helpers.report_pages import Write, page_of
from multiseg.cli.compare import compare as compare_command
from multiseg.errors import SettingsError
from multiseg.run.names import COLUMNS

Make = Callable[..., Path]
RUNS = (
    ("caffe", 1, (200, 100, 50)),
    ("torch", 1, (200, 102, 50.5)),
    ("tensorflow", 1, (200, 99, 50.2)),
    ("torch", 2, (210, 110, 52)),
    ("torch", 3, (190, 105, 49)),
)


@pytest.fixture
def make(write: Write) -> Make:
    """Writes a finished run whose L1, and nothing else, is as given."""

    def made(backend: str, seed: int, l1: Any, name: str = "", **settings: Any) -> Path:
        epochs = len(l1) - 1
        folder = write(name or f"{backend}-{seed}", backend, epochs=epochs, seed=seed, **settings)
        with (folder / "history.csv").open("w", newline="") as file:
            rows = csv.DictWriter(file, COLUMNS)
            rows.writeheader()
            rows.writerows({"epoch": n, "iteration": n, "l1": value, "seconds": 1} for n, value in enumerate(l1))
        return folder

    return made


@pytest.fixture
def runs(make: Make) -> list[Path]:
    return [make(*each) for each in RUNS]


def test_a_metric_that_older_runs_do_not_have_is_not_compared(runs: list[Path]) -> None:
    """Each run was validated, but only the newest computed Dice; that is no reason to fail."""
    for number, folder in enumerate(runs):
        with (folder / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row |= {"val_loss": row["l1"], "dice": "0.5" if number else ""}
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    comparison = multiseg.compare(runs, images=0)
    agreement = comparison.agreement
    assert agreement is not None and agreement.missing == ()
    assert "dice" not in {measure.metric.key for measure in agreement.measures}
    assert comparison.check(within_seeds=1) == []


def test_gaps_at_one_seed_beside_the_spread_over_seeds(runs: list[Path]) -> None:
    found = multiseg.compare(runs).to_dict()["agreement"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["seeds_of"], found["seeds"]) == ("torch", [1, 2, 3])
    assert found["backends"] == ["caffe", "torch", "tensorflow"]
    assert found["metrics"].keys() == {"l1"}
    assert found["metrics"]["l1"]["last"] == {
        "epoch": 2,
        "gap": pytest.approx(0.5),  # 50.5 - 50
        "relative": pytest.approx(0.5 / 50.34),  # (50 + 50.5 + 50.2 + 52 + 49) / 5
        "seed": 1,
        "between": ["Caffe", "PyTorch · torch-1"],
        "spread": pytest.approx(3),  # 52 - 49
        "deviation": pytest.approx(1.5),  # ((0 + 1.5² + 1.5²) / 2)½
        "ratio": pytest.approx(1 / 6),
    }
    assert found["metrics"]["l1"]["widest"] == {
        "epoch": 1,
        "gap": pytest.approx(3),  # 102 - 99
        "relative": pytest.approx(3 / 103.2),  # (100 + 102 + 99 + 110 + 105) / 5
        "seed": 1,
        "between": ["TensorFlow", "PyTorch · torch-1"],
        "spread": pytest.approx(8),  # 110 - 102
        "deviation": pytest.approx((((102 - 105 - 2 / 3) ** 2 + (110 - 105 - 2 / 3) ** 2 + (2 / 3) ** 2) / 2) ** 0.5),
        "ratio": pytest.approx(3 / 8),
    }
    assert (
        found["headline"] == "At the end backends differ by less than seeds do: 0.17 times as much in L1, where most."
    )


def test_more_than_seeds_is_said(make: Make, runs: list[Path]) -> None:
    runs[0] = make("caffe", 1, (200, 100, 45), "worse")  # 50.5 - 45 = 5.5, of 3
    found = multiseg.compare(runs).agreement
    assert found is not None
    assert found.headline == "At the end backends differ by more than seeds do in L1: 1.8 times as much in L1."
    assert found.failures(2) == []
    (line,) = found.failures(1)
    assert line == (
        "l1 after epoch 2: backends differ by 5.5 at seed 1 (Caffe and PyTorch · torch-1), seeds of PyTorch by 3; "
        "at most 1 times as much allowed"
    )


def test_the_largest_gap_of_several_seeds_counts(make: Make, runs: list[Path]) -> None:
    found = multiseg.compare([*runs, make("caffe", 3, (190, 105, 48.2))]).agreement
    assert found is not None
    last = found.measures[0].last
    assert (last.gap, last.seed) == (pytest.approx(0.8), 3)
    assert "at the same seed (1, 3)" in found.basis


def test_runs_of_other_settings_data_and_networks_do_not_count(make: Make, runs: list[Path]) -> None:
    others = [
        make("caffe", 2, (0, 0, 0), "loss", loss="l1"),
        make("torch", 4, (0, 0, 0), "data", content="another"),
        make("torch", 5, (0, 0, 0), "unfinished", status="stopped"),
        make("torch", 6, (0, 0), "shorter"),
        make("torch", 1, (9, 9, 9), "again"),  # the same training twice: the first one counts
    ]
    network = make("caffe", 7, (0, 0, 0), "network")
    job = json.loads((network / "job.json").read_text())
    job["network"]["parameters"]["conv.weight"] = [9, 1, 3, 3]
    (network / "job.json").write_text(json.dumps(job))
    found = multiseg.compare([*runs, *others, network]).agreement
    assert found is not None
    assert [each.run.name for each in found.runs] == [run.name for run in runs]


def test_what_changes_no_result_may_differ(make: Make) -> None:
    free = {
        "model": "fcn.prototxt",
        "threads": 7,
        "data_workers": 3,
        "image_cache": 100,
        "device": "cuda",
        "lowering": False,
        "keep": "all",
        "exported": "x.py",
    }
    runs = [make(*each, **(free if each[0] == "caffe" else {})) for each in RUNS]
    found = multiseg.compare(runs).agreement
    assert found is not None
    assert len(found.runs) == 5


@pytest.mark.parametrize(
    ("own", "units", "known"), [(False, "l2", {"l1", "val_loss"}), (True, "own", {"l1"})]
)  # fmt: skip
def test_losses_count_where_they_share_a_unit(write: Write, own: bool, units: str, known: set[str]) -> None:
    runs = [
        write(f"{b}-{s}", b, seed=s, own_loss=own, loss=units) for b, s in (("caffe", 1), ("torch", 1), ("torch", 2))
    ]
    found = multiseg.compare(runs).to_dict()["agreement"]
    assert ("val_loss" in found["metrics"]) is ("val_loss" in known)
    assert found["headline"] == "At the end backends do not differ at all."  # these runs are all the same


def test_seeds_that_are_equal_judge_nothing_but_equals(make: Make) -> None:
    runs = [make("caffe", 1, (9, 5)), make("torch", 1, (9, 5)), make("torch", 2, (9, 5))]
    assert multiseg.compare(runs).check(within_seeds=1) == []
    runs[0] = make("caffe", 1, (9, 5.1), "off")
    comparison = multiseg.compare(runs)
    assert comparison.agreement is not None
    assert comparison.agreement.headline.endswith("more than seeds do in L1, and seeds not at all in L1.")
    (line,) = comparison.check(within_seeds=100)
    assert "backends differ by 0.1 at seed 1" in line
    assert comparison.to_dict()["agreement"]["metrics"]["l1"]["last"]["ratio"] is None


def test_a_run_that_diverged_fails(make: Make, runs: list[Path], tmp_path: Path) -> None:
    runs[2] = make("tensorflow", 1, (200, 99, "nan"), "diverged")
    comparison = multiseg.compare(runs, images=0)
    (line,) = comparison.check(within_seeds=1)
    assert line == "TensorFlow: no l1, required to compare backends"
    assert "Not every run has figures at the end" in comparison.to_markdown()
    assert line in page_of(comparison, tmp_path)


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ([1, 3, 4], "no two backends were trained to the end"),
        ([0, 1, 2], "no backend was trained with several seeds"),
        ([0, 3, 4], "no two backends were trained with the same seed"),
        ([], "no two backends"),
    ],
)
def test_where_there_is_nothing_to_judge_by_it_is_said(make: Make, write: Write, left: list[int], said: str) -> None:
    runs = [make(*RUNS[index]) for index in left] or [write("alone")]
    comparison = multiseg.compare(runs, images=0)
    assert comparison.agreement is None
    assert comparison.to_dict()["agreement"] is None
    assert "seeds do" not in comparison.to_markdown()
    assert comparison.check() == []
    with pytest.raises(SettingsError, match=f"backends cannot be judged by seeds: {said}"):
        comparison.check(within_seeds=1)


def test_settings_that_keep_backends_from_being_compared_are_named(make: Make, runs: list[Path]) -> None:
    own = make("caffe", 1, (200, 100, 50), "own", loss="l1", solver={"name": "adam"})
    with pytest.raises(SettingsError, match=r"no two backends .* network \(these runs differ in loss, solver\)"):
        multiseg.compare([own, runs[1], runs[3]]).check(within_seeds=1)


@pytest.mark.parametrize("factor", [0, -1, float("nan"), float("inf")])
def test_a_factor_that_is_none(runs: list[Path], factor: float) -> None:
    with pytest.raises(SettingsError, match=r"within_seeds=.*: must be a number above 0"):
        multiseg.compare(runs).check(within_seeds=factor)


def test_markdown_and_page_tell_it(runs: list[Path], write: Write, tmp_path: Path) -> None:
    comparison = multiseg.compare(runs, images=0)
    text = comparison.to_markdown()
    assert "3 seeds of PyTorch (1, 2, 3)" in text
    assert "| L1 | 0.500 | 3.00 | 1.50 | 0.17 | 2.9 % after epoch 1, 0.38 times as much |" in text
    page = page_of(comparison, tmp_path)
    assert '<section id="agreement">' in page
    assert "standard deviation 1.50, n = 3" in page
    assert 'id="agreement"' not in page_of(multiseg.compare([write("alone")], images=0), tmp_path)


def test_the_command_exits_1_beyond_the_factor(runs: list[Path]) -> None:
    names = [*map(str, runs), "--json", "--within-seeds"]
    done = CliRunner().invoke(compare_command, [*names, "0.2"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["failures"] == [done.stderr.removeprefix("failed: ").strip()]
    assert "l1 after epoch 1" in done.stderr  # 3 of 8, where 0.5 of 3 at the end is within
    assert CliRunner().invoke(compare_command, [*names, "0.5"]).exit_code == 0
