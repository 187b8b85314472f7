"""Where the histories of runs of one seed part."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import multiseg
from helpers.report_pages import Write


def change(folder: Path, epoch: int, **factors: float) -> None:
    """Multiply values of one row of a history."""
    path = folder / "history.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(row for row in rows if float(row["epoch"]) == epoch)
    row.update({key: repr(float(row[key]) * factor) for key, factor in factors.items()})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_the_first_row_and_quantity_that_differ_by_more_than_rounding(write: Write) -> None:
    one, other = write("one"), write("other", backend="caffe")
    change(other, 1, val_loss=1 + 1e-5)
    change(other, 2, train_loss=1.02, iou=0.5)
    change(other, 3, train_loss=3.0)
    comparison = multiseg.compare([one, other], images=0)
    (parting,) = comparison.partings
    assert parting.first is not None and parting.before is not None
    assert (parting.first.epoch, parting.first.iteration, parting.first.quantity) == (2, 200, "train_loss")
    assert parting.first.values == (1.0, 1.02) and parting.first.relative == pytest.approx(0.02 / 1.02)
    assert (parting.before.quantity, parting.before.epoch) == ("val_loss", 1)
    assert parting.before.relative == pytest.approx(1e-5, rel=1e-3)
    text = (
        "PyTorch and Caffe part after iteration 200 (epoch 2): Training loss 1.0000 and 1.0200, which differ by 2.0 %"
    )
    assert text in str(parting) and text in comparison.to_markdown()
    assert comparison.to_dict()["partings"][0]["first"]["iteration"] == 200
    assert text in comparison.to_html(one.parent / "page.html").read_text()


def test_histories_that_do_not_part(write: Write) -> None:
    one, same, near = write("one"), write("same", backend="caffe"), write("near", backend="tensorflow")
    change(near, 3, l1=1 - 2e-4)
    texts = [str(parting) for parting in multiseg.compare([one, same, near], images=0).partings]
    assert texts[0] == "PyTorch and Caffe have the same history"
    assert texts[1].startswith("PyTorch and TensorFlow do not part: no quantity differs by more than 0.1")
    assert "(at most 0.020 %, after iteration 300 (epoch 3): L1 " in texts[1]


def test_a_value_that_is_not_finite_parts(write: Write) -> None:
    one, other = write("one"), write("other", backend="caffe")
    change(other, 3, train_loss=float("inf"))
    comparison = multiseg.compare([one, other], images=0)
    assert comparison.partings[0].first is not None and comparison.partings[0].first.epoch == 3
    assert comparison.to_dict()["partings"][0]["first"]["relative"] is None


def test_only_runs_of_one_seed_and_setting_of_the_recipe_equal(write: Write) -> None:
    runs = [write("one"), write("seed", seed=2), write("batch", batch_size=8), write("data", content="f" * 16)]
    runs.append(write("tutorial", recipe="tutorial"))
    comparison = multiseg.compare(runs, images=0)
    assert comparison.partings == [] and "Histories of one seed" not in comparison.to_markdown()
