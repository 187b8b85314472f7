"""``multiseg backends``."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from multiseg.worker.status import BackendStatus


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def backends(as_json: bool) -> None:
    """List the backends: version and device, or what is missing and how to install it."""
    from multiseg.worker import status

    known = status.backends()
    if as_json:
        click.echo(json.dumps([backend.to_json() for backend in known], indent=2))
        return
    click.echo("\n\n".join(_described(backend) for backend in known))


def _described(backend: BackendStatus) -> str:
    """Return the lines of one backend: short ones, so that they are legible on any terminal."""
    if backend.problem:
        return f"{backend.name}: not available\n{textwrap.indent(str(backend.problem), '  ')}"
    return "\n  ".join(
        [
            f"{backend.name} {backend.version}",
            f"device         {backend.device}",
            f"learning rate  {backend.learning_rate:g}" if backend.learning_rate else "learning rate  -",
            f"batch size     {backend.batch_size}" if backend.batch_size else "batch size     -",
            f"data           {backend.data_order} {backend.channel_order}",
            f"files          {' '.join(backend.formats)}",
            f"python         {backend.python}",
        ]
    )
