"""The results of a comparison as CSV, LaTeX and pivot tables, and runs against their baselines."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from statistics import stdev

import pytest
from click.testing import CliRunner

import multiseg
from helpers.report_pages import Write
from helpers.terminal import on_a_terminal
from multiseg.cli.compare import compare as compare_command
from multiseg.errors import SettingsError
from multiseg.report.tables import latex


def printed(*arguments: object) -> str:
    result = CliRunner().invoke(compare_command, ["--images", "0", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_csv_has_all_figures_unrounded(write: Write) -> None:
    runs = [write("a", "caffe", iou=0.123456789), write("b,\n", "torch", iou=0.5)]
    rows = list(csv.DictReader(io.StringIO(printed(*runs, "--csv"))))
    assert [row["name"] for row in rows] == ["a", "b,\n"]
    assert [float(row["iou"]) for row in rows] == [0.123456789, 0.5]
    assert float(rows[0]["train_seconds"]) == 30
    assert rows[0]["miou"] == ""


def test_latex_escapes_and_marks_the_best(write: Write) -> None:
    comparison = multiseg.compare([write("a_&%", iou=0.7), write("b", iou=0.9)], images=0)
    lines = comparison.to_latex().splitlines()
    assert lines[0].startswith(r"\begin{tabular}{llrr") and lines[-1] == r"\end{tabular}"
    first, second = lines[4:6]
    assert r"PyTorch · a\_\&\%" in first and r"\textbf" not in first.split(" & ")[2]
    assert r"\textbf{0.900}" in second
    assert r"90.00 \%" in second
    assert all(line.count(" & ") == lines[2].count(" & ") for line in lines[4:6])


def test_a_pivot_has_mean_and_standard_deviation_over_seeds(write: Write) -> None:
    runs = [
        write(f"{backend}{dataset}{seed}", backend, iou=iou, dataset=f"/data/{dataset}", content=dataset, seed=seed)
        for backend, dataset, seed, iou in (
            ("torch", "one", 1, 0.8), ("torch", "one", 2, 0.6), ("torch", "two", 1, 0.5), ("caffe", "one", 1, 0.9),
        )
    ]  # fmt: skip
    table = multiseg.compare(runs, images=0).pivot("dataset")
    assert table.headings == ("IoU, by network and backend", "one", "two")
    deviation = stdev([0.8, 0.6])
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["fcn, PyTorch", f"0.700 ± {deviation:.3f}", "0.500"], ["fcn, Caffe", "0.900", "–"],
    ]  # fmt: skip
    assert [[cell.best for cell in row] for row in table.rows] == [[False, False, False], [False, True, False]]
    assert r"$\pm$" in latex(table)
    by_backend = printed(*runs, "--pivot", "backend:l1")
    assert by_backend.splitlines()[0] == "| L1, by network | PyTorch | Caffe |"
    assert printed(*runs, "--pivot", "seed", "--csv").splitlines()[0] == '"IoU, by network and backend",seed 1,seed 2'
    with pytest.raises(SettingsError, match="dataset, seed, backend"):
        multiseg.compare(runs, images=0).pivot("colour")


def test_a_pivot_has_a_column_for_each_content_of_a_dataset(write: Write) -> None:
    runs = [
        write("a", iou=0.9, dataset="/a/ds", content="1" * 64),
        write("b", iou=0.1, dataset="/b/ds", content="2" * 64),
        write("c", iou=0.5, dataset="/c/other", content="3" * 64),
        write("d", iou=0.7, dataset="/moved/renamed", content="1" * 64),
    ]
    table = multiseg.compare(runs, images=0).pivot("dataset")
    assert table.headings[1:] == (f"ds ({'1' * 12})", f"ds ({'2' * 12})", "other")
    assert [cell.text for cell in table.rows[0][1:]] == [f"0.800 ± {stdev([0.9, 0.7]):.3f}", "0.100", "0.500"]


def test_a_run_is_held_against_the_mean_of_its_baselines(write: Write) -> None:
    earlier = [write("main1", iou=0.90), write("main2", iou=0.92), write("other", "caffe", iou=0.99)]
    now, lone = write("now", iou=0.90), write("lone", "tensorflow", iou=0.9)
    comparison = multiseg.compare([now], images=0)
    assert comparison.check(baseline=earlier, max_regression={"iou": 0.02, "l1": 0}) == []
    (failure,) = comparison.check(baseline=earlier, max_regression={"iou": 0.005})
    assert failure == ("PyTorch: iou is 0.9, worse than the baseline's 0.91 by 0.01, at most 0.005 allowed")
    (missing,) = multiseg.compare([lone], images=0).check(baseline=earlier, max_regression={"iou": 1})
    assert "no baseline run has the backend tensorflow" in missing
    with pytest.raises(SettingsError, match="together"):
        comparison.check(max_regression={"iou": 0.1})
    baselines = [word for run in earlier for word in ("--baseline", str(run))]
    result = CliRunner().invoke(
        compare_command,
        [str(now), "--images", "0", "--json", *baselines, "--max-regression", "iou=0.005"],
    )  # fmt: skip
    assert result.exit_code == 1
    assert json.loads(result.stdout)["failures"] == [failure]


def test_formats_exclude_each_other(write: Write, tmp_path: Path) -> None:
    result = CliRunner().invoke(compare_command, [str(write()), "--csv", "--latex"])
    assert result.exit_code == 2 and "choose one" in result.stderr


def test_on_a_terminal_each_run_has_a_column(write: Write) -> None:
    runs = [
        write(f"run-{number}", backend, iou=0.9 - number / 100) for number, backend in enumerate(["torch", "caffe"] * 4)
    ]
    lines = on_a_terminal(sys.executable, "-m", "multiseg.cli", "compare", *runs, "--images", "0")
    table = [line for line in lines if line.startswith(("IoU ", "Version "))]
    assert max(map(len, table)) <= 80
    assert [float(value) for line in table if line.startswith("IoU ") for value in line.split()[1:]] == [
        0.90, 0.89, 0.88, 0.87, 0.86, 0.85, 0.84, 0.83,
    ]  # fmt: skip
    assert not any("|" in line for line in lines)
