"""``multiseg export-history``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File: .csv or .parquet.")
def export_history(run: Path, output: Path) -> None:
    """Write the history of RUN as a table."""
    from multiseg.run.run import Run

    click.echo(Run.open(run).export_history(output))
