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

    Its loss is the framework's own one of images, or the cross entropy of class numbers: where the dataset's labels are such,
    or without a dataset where the network's own loss is one. Layers that the framework cannot express exactly are refused by
    name. A network file written in Python is executed: load only files you trust.
    """
    from multiseg import exporting
    from multiseg.dataset import Dataset

    exporting.check_name(output, backend)
    topology = topology_of(file, shape_of(input_shape, dataset))
    labels = Dataset.open(dataset).train.label_shape if dataset else None
    click.echo(exporting.export(topology, backend, output, label_shape=labels))
