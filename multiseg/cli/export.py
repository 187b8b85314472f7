"""``multiseg export``."""

from __future__ import annotations

from pathlib import Path

import click

from multiseg.cli.model import FILE, shape_of, sizes, topology_of


@click.command()
@FILE
@click.option("--to", "backend", required=True, help="Framework to write it for; see `multiseg backends`.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@sizes
def export(file: Path, backend: str, output: Path, input_shape: str | None, dataset: Path | None) -> None:
    """Write the network in FILE, of any backend's formats, as another framework's own source file.

    Layers that the framework cannot express exactly are refused by name. A network file written in Python is executed: load
    only files you trust.
    """
    from multiseg import exporting

    exporting.check_name(output, backend)
    click.echo(exporting.export(topology_of(file, shape_of(input_shape, dataset)), backend, output))
