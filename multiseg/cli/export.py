"""``multiseg export``."""

from __future__ import annotations

from pathlib import Path

import click

from multiseg.cli.model import CLASSES, FILE, MODEL_OPTION, OUTPUTS, names_of, network_file, shape_of, sizes


@click.command()
@FILE
@click.option("--to", required=True, help="Backend to write the file for, see `multiseg backends`; or onnx.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Weights for onnx: a weights file or a run.  [default: those of FILE]",
)
@click.option(
    "--with-preprocessing", is_flag=True, help="ONNX: channel order, mean and standard deviation are in the graph."
)
@click.option("--with-argmax", is_flag=True, help="ONNX: the output is class indices.")
@sizes
@CLASSES
@MODEL_OPTION
@OUTPUTS
def export(
    file: Path, to: str, output: Path, weights: Path | None, with_preprocessing: bool, with_argmax: bool,
    input_shape: str | None, dataset: Path | None, classes: int | None, model_option: tuple[str, ...],
    outputs: str | None,
) -> None:  # fmt: skip
    """Write the network in FILE, in a format of any backend or a run folder, as source of another framework, or as ONNX.

    FILE may also be a name, or a class or function in a file, as in `multiseg describe`.

    The loss in a source file is the backend's loss of images, or cross entropy if the labels are class indices: those of the
    dataset, or, without a dataset, those of the network's own loss. What the file does not express, another loss of the network
    or a mean that is subtracted first, is named at its head and on standard error. An ONNX file contains weights and no loss;
    its metadata state the mean, and it is written only if onnxruntime computes each layer correctly. A layer that the
    framework cannot express exactly is an error that names it. A network file written in Python is executed: load only files
    you trust.
    """
    from multiseg.dataset import Dataset
    from multiseg.exporting import files
    from multiseg.run.reading import is_run

    labels = Dataset.open(dataset).train.label_shape if dataset else None
    if not is_run(file):
        file = network_file(file, dataset, classes, model_option)
    path = files.export(
        file, to, output, shape_of(input_shape, dataset), labels, weights,
        with_preprocessing=with_preprocessing, with_argmax=with_argmax, outputs=names_of(outputs),
        report=lambda text: click.echo(f"note: {text}", err=True),
    )  # fmt: skip
    for note in files.exported_notes(path):
        click.echo(f"note: {note}", err=True)
    click.echo(path)
