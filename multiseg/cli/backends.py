"""``multiseg backends``."""

from __future__ import annotations

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def backends(as_json: bool) -> None:
    """List the backends: version and device, or what is missing and how to install it."""
    from rich.console import Console
    from rich.table import Table

    from multiseg.worker import status

    found = status.backends()
    if as_json:
        click.echo(json.dumps([backend.to_json() for backend in found], indent=2))
        return
    table = Table()
    for heading in ("backend", "version", "device", "rate", "batch", "data", "files", "python"):
        table.add_column(heading)
    for backend in found:
        table.add_row(
            backend.name,
            backend.version or "not available",
            backend.device or "-",
            f"{backend.learning_rate:g}" if backend.learning_rate else "-",
            str(backend.batch_size or "-"),
            f"{backend.data_order} {backend.channel_order}",
            " ".join(backend.formats),
            backend.python or "-",
        )
    Console().print(table)
    for backend in found:
        if backend.problem:
            click.echo(backend.problem)
