"""A comparison on a terminal: a column for each run, in as many tables as fit its width."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from multiseg.cli.notation import visible
from multiseg.cli.tables import Cell, print_table

if TYPE_CHECKING:
    from multiseg.report import Comparison
    from multiseg.report.tables import Table


def print_comparison(comparison: Comparison) -> None:
    """Print what the Markdown has: headline, metrics, where histories part, and differences of backends, seeds and settings."""
    from multiseg.report.facts import settings
    from multiseg.report.markdown import AGREEMENT, measured
    from multiseg.report.tables import results

    click.echo(visible(comparison.headline) + "\n")
    table = results(comparison)
    labels = [row[0].text for row in table.rows]
    metrics = list(zip(*([_cell(cell.text, cell.best) for cell in row] for row in table.rows), strict=True))
    print_table(
        ("", *labels),
        [(heading, *cells) for heading, cells in zip(table.headings[1:], metrics[1:], strict=True)],
        right=labels, parted=True,
    )  # fmt: skip
    if comparison.partings:
        click.echo("\nHistories of one seed:")
        for parting in comparison.partings:
            click.echo(visible(f"- {parting}"))
    agreement = comparison.agreement
    if agreement:
        click.echo(visible("\n" + " ".join([agreement.headline, agreement.basis, *agreement.missing])))
        if agreement.measures:
            print_table(AGREEMENT, map(measured, agreement.measures), right=AGREEMENT[1:5])
    differing = [row for row in settings(comparison.facts) if row.differs]
    if differing:
        click.echo("\nSettings that differ:")
        print_table(("", *labels), [(row.key, *row.values) for row in differing], parted=True)


def print_pivot(table: Table) -> None:
    """Print a table of one metric."""
    rows = [[_cell(cell.text, cell.best) for cell in row] for row in table.rows]
    print_table(table.headings, rows, right=table.headings[1:], parted=True)


def _cell(text: str, best: bool) -> Cell:
    return (text, "bold") if best else text
