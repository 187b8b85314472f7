"""Tables on a terminal: legible at any width, with nothing cut off."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence

from multiseg.cli.notation import visible

NOT_A_TERMINAL = 160  # columns of a table that is written to a file or pipe


def print_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: Collection[str] = (),
    title: str | None = None,
    err: bool = False,
) -> None:
    """Print a table; cells that do not fit are folded.

    ``right`` are the headings of columns of numbers; with ``err`` it is printed on standard error.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(visible, row))
    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() else NOT_A_TERMINAL
    Console(width=width, stderr=err, markup=False, highlight=False).print(table)
