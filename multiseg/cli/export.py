"""``multiseg export``."""

from __future__ import annotations

from pathlib import Path

import click

from multiseg.cli.model import FILE, shape_of, sizes


@click.command()
@FILE
@click.option("--to", required=True, help="Backend to write the file for, see `multiseg backends`; or onnx.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Weights for onnx: a weights file or a run.  [default: those of FILE]",
)
@sizes
def export(
    file: Path, to: str, output: Path, weights: Path | None, input_shape: str | None, dataset: Path | None
) -> None:
    """Write the network in FILE, in a format of any backend or a run folder, as source of another framework, or as ONNX.

    The loss in a source file is the backend's loss of images, or cross entropy if the labels are class indices: those of the
    dataset, or, without a dataset, those of the network's own loss. What the file does not express, another loss of the network
    or a mean that is subtracted first, is named at its head and on standard error. An ONNX file contains weights and no loss;
    its metadata state the mean. A layer that the
    framework cannot express exactly is an error that names it. A network file written in Python is executed: load only files
    you trust.
    """
    from multiseg.dataset import Dataset
    from multiseg.exporting import files

    labels = Dataset.open(dataset).train.label_shape if dataset else None
    path = files.export(file, to, output, shape_of(input_shape, dataset), labels, weights)
    for note in files.exported_notes(path):
        click.echo(f"note: {note}", err=True)
    click.echo(path)
