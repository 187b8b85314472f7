"""``multiseg export``."""

from __future__ import annotations

from pathlib import Path

import click

from multiseg.cli.model import FILE, shape_of, sizes


@click.command()
@FILE
@click.option("--to", required=True, help="Framework to write it for, see `multiseg backends`; or onnx.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="Weights for onnx: a file, or a run. Default: FILE's own."
)
@sizes
def export(
    file: Path, to: str, output: Path, weights: Path | None, input_shape: str | None, dataset: Path | None
) -> None:
    """Write the network in FILE, of any backend's formats or a run folder, as another framework's own source file, or as ONNX.

    A source's loss is the framework's own one of images, or the cross entropy of class numbers: where the dataset's labels are
    such, or without a dataset where the network's own loss is one. An ONNX file has weights and no loss. Layers that the
    framework cannot express exactly are refused by name. A network file written in Python is executed: load only files you trust.
    """
    from multiseg.dataset import Dataset
    from multiseg.exporting import files

    labels = Dataset.open(dataset).train.label_shape if dataset else None
    click.echo(files.export(file, to, output, shape_of(input_shape, dataset), labels, weights))
