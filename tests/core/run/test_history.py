"""Histories of other versions: a column that is missing is empty, and one that is unknown is kept."""

from __future__ import annotations

from pathlib import Path

from multiseg.run.folder import RunFolder
from multiseg.run.names import COLUMNS
from multiseg.run.reading import read_history


def test_a_history_without_a_metric_has_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,iteration,val_loss,iou\n0,0,3.5,\n1,20,2.5,0.75\n")
    rows = read_history(tmp_path / "history.csv")
    assert [row["iou"] for row in rows] == [None, 0.75] and [row["dice"] for row in rows] == [None, None]
    assert [list(row) for row in rows] == [list(COLUMNS)] * 2


def test_a_column_of_a_later_version_is_kept(tmp_path: Path) -> None:
    header = ",".join([*COLUMNS, "later"])
    (tmp_path / "history.csv").write_text(f"{header}\n{'0,' * len(COLUMNS)}0.5\n")
    folder = RunFolder(tmp_path)
    folder.rows = read_history(tmp_path / "history.csv")
    folder.add_row({**dict.fromkeys(COLUMNS), "epoch": 1, "iteration": 20, "seconds": 1.0})
    rows = read_history(tmp_path / "history.csv")
    assert [row["later"] for row in rows] == [0.5, None] and [row["epoch"] for row in rows] == [0, 1]
