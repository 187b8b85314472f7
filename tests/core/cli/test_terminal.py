"""Tables on a terminal of 80 columns: nothing is cut off, and no name or number is broken where words can be."""

from __future__ import annotations

import sys

from helpers.terminal import on_a_terminal
from multiseg.backend import package_folder

PRINT = """
from multiseg.cli.tables import print_table
print_table(("", *{headings!r}), {rows!r}, right={headings!r}, parted={parted})
"""


def printed(headings: list[str], rows: list[list[str]], parted: bool) -> list[str]:
    lines = on_a_terminal(sys.executable, "-c", PRINT.format(headings=headings, rows=rows, parted=parted))
    assert max(map(len, lines)) <= 80
    return lines


def test_layers_keep_their_names_types_and_counts() -> None:
    model = package_folder("multiseg_models") / "unet.prototxt"
    command = (sys.executable, "-m", "multiseg.cli", "describe", model, "--input-shape", "3,64,64")
    wide, narrow = on_a_terminal(*command, columns=200), on_a_terminal(*command)
    assert max(map(len, narrow[1:])) <= 80  # the first is a sentence
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in wide if line.startswith("│")]
    assert len(rows) > 50
    text = "\n".join(narrow).split()
    for name, type_, output, _, weights, adds in rows:
        assert {name, type_, output, *weights.split(), *adds.split()} <= set(text)


def test_columns_of_one_kind_that_do_not_fit_are_printed_below() -> None:
    headings = [f"backend {number}" for number in range(9)]
    rows = [[f"layer{row}", *(f"{row}.{column}e-05, 12 %" for column in range(9))] for row in range(3)]
    lines = printed(headings, rows, parted=True)
    for row, cells in enumerate(rows):
        own = [line for line in lines if line.startswith(f"layer{row} ")]
        assert 2 <= len(own) <= 4
        assert [cell for line in own for cell in line.split()[1:]] == [
            part for cell in cells[1:] for part in cell.split()
        ]


def test_headings_are_folded_before_cells() -> None:
    headings = ["PyTorch (fcn_torch.py)", "TensorFlow (fcn_tensorflow.py)", "Caffe (fcn.prototxt)"]
    lines = printed(headings, [["deconv.weight", "2.3e-06, 12 %", "2.4e-06, 13 %", "2.5e-06, 14 %"]], parted=True)
    assert lines[-2].split() == ["deconv.weight", "2.3e-06,", "12", "%", "2.4e-06,", "13", "%", "2.5e-06,", "14", "%"]


def test_a_cell_longer_than_the_terminal_is_folded_whole() -> None:
    name = "x" * 300
    for parted in (False, True):
        lines = printed(["value"], [[name, "12345"]], parted)
        assert sum(line.count("x") for line in lines) == 300
        assert sum(line.count("12345") for line in lines) == 1
