"""Tables on a terminal: legible at any width, with nothing cut off."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from multiseg.cli.notation import visible

if TYPE_CHECKING:
    from rich.console import Console

NOT_A_TERMINAL = 160  # columns of a table that is written to a file or pipe
GAP = 2  # columns between two columns of a narrow table: padding and the box's own
WIDEST = 30  # of a column that is one of several of a kind, and is folded beyond

Cell = str | tuple[str, str]
"""The text of a cell, and its style if it has one."""


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    right: Collection[str] = (),
    title: str | None = None,
    err: bool = False,
    parted: bool = False,
) -> None:
    """Print a table in the width of the terminal.

    Columns that do not fit side by side become narrower, those of several words first; or, if the table is ``parted``, the
    columns after the first, which are of one kind, are printed in several tables with the first column each. ``right`` are
    the headings of columns of numbers; with ``err`` the table is printed on standard error.
    """
    from rich.console import Console

    cells = [
        [(visible(cell), "") if isinstance(cell, str) else (visible(cell[0]), cell[1]) for cell in row] for row in rows
    ]
    stream = sys.stderr if err else sys.stdout
    console = Console(width=None if stream.isatty() else NOT_A_TERMINAL, stderr=err, markup=False, highlight=False)
    heads = [visible(heading) for heading in headings]
    numbers = {at for at, heading in enumerate(headings) if heading in right}
    natural = [max(_width(text) for text in column) for column in _columns(heads, cells)]
    if sum(natural) + 3 * len(heads) + 1 <= console.width:
        _print(console, heads, cells, numbers, title, None, range(len(heads)))
        return
    if not parted:
        heads = [head.replace("-", "-\n") for head in heads]
        natural = [max(_width(text) for text in column) for column in _columns(heads, cells)]
    words = [max(_width(word) for text in column for word in text.split() or [""]) for column in _columns(heads, cells)]
    if not parted:
        _print(console, heads, cells, numbers, title, _fitted(natural, words, console.width), range(len(heads)))
        return
    natural = [min(width, WIDEST) for width in natural]
    # headings may be folded between words, cells are not
    narrow = [
        min(WIDEST, max(_width(text) for text in ["", *head.split(), *column]))
        for head, *column in _columns(heads, cells)
    ]
    for number, group in enumerate(_groups(narrow[1:], console.width - narrow[0] - GAP)):
        chosen = [0, *(at + 1 for at in group)]
        if number:
            console.print()
        widths = _fitted([natural[at] for at in chosen], [narrow[at] for at in chosen], console.width)
        _print(console, heads, cells, numbers, title if not number else None, widths, chosen)


def _columns(heads: Sequence[str], cells: Sequence[Sequence[tuple[str, str]]]) -> list[list[str]]:
    return [[head, *(row[at][0] for row in cells)] for at, head in enumerate(heads)]


def _print(
    console: Console, heads: Sequence[str], cells: Sequence[Sequence[tuple[str, str]]], numbers: Collection[int],
    title: str | None, widths: Sequence[int] | None, chosen: Sequence[int],
) -> None:  # fmt: skip
    """Print some columns of a table: with a grid, or, with the ``widths`` of these columns, without one."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    if widths is not None:
        table = Table(
            title=title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            show_edge=False,
        )
    for position, at in enumerate(chosen):
        width = widths[position] if widths is not None else None
        table.add_column(heads[at], justify="right" if at in numbers else "left", overflow="fold", width=width)
    for row in cells:
        table.add_row(*(Text(*row[at]) for at in chosen))
    console.print(table)


def _fitted(natural: Sequence[int], words: Sequence[int], available: int) -> list[int]:
    """Return widths of columns that fit: those with several words are narrowed first, down to their longest, then the widest."""
    widths = list(natural)
    for _ in range(sum(widths) + GAP * len(widths) - available):
        roomy = [at for at, width in enumerate(widths) if width > max(1, words[at])] or range(len(widths))
        widest = max(roomy, key=lambda at: widths[at])
        widths[widest] = max(1, widths[widest] - 1)
    return widths


def _groups(widths: Sequence[int], available: int) -> list[list[int]]:
    """Return the columns in groups that fit side by side, each of one at least."""
    groups: list[list[int]] = []
    used = 0
    for at, width in enumerate(widths):
        if not groups or used + width + GAP > available:
            groups.append([])
            used = 0
        groups[-1].append(at)
        used += width + GAP
    return groups


def _width(text: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, text.splitlines()), default=0)
