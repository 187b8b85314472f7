"""``multiseg describe`` and ``multiseg visualize``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from multiseg.errors import SettingsError
from multiseg.files import json_text
from multiseg.topology import Topology

FILE = click.argument("file", type=click.Path(path_type=Path))


def sizes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the two options that specify the shape of the network's input."""
    shape = click.option(
        "--input-shape", metavar="C,H,W", help="Channels, height and width of the input.  [default: those in the file]"
    )
    dataset = click.option(
        "--dataset", type=click.Path(path_type=Path), help="Use the shape of this dataset's images, and its classes."
    )
    return shape(dataset(command))


CLASSES = click.option(
    "--classes", type=click.IntRange(min=1), metavar="N", help="Classes of a network that is specified by name."
)


@click.command()
@FILE
@click.argument("other", required=False, type=click.Path(path_type=Path))
@sizes
@CLASSES
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_context
def describe(
    ctx: click.Context, file: Path, other: Path | None, input_shape: str | None, dataset: Path | None,
    classes: int | None, as_json: bool,
) -> None:  # fmt: skip
    """List the layers of the network in FILE, in a format of any backend; with OTHER, list the differences of the two.

    FILE may be the name of a network, see `multiseg models`.

    The exit status is 1 if they differ. A network file written in Python is executed: load only files you trust.
    """
    shape, classes = shape_of(input_shape, dataset), classes_of(dataset, classes)
    topology = topology_of(file, shape, classes)
    if other is None:
        if as_json:
            click.echo(json_text(topology.to_json()))
        else:
            _print_table(topology)
        return
    found = topology.diff(topology_of(other, shape, classes))
    if as_json:
        files = {"files": [str(file), str(other)], "equal": not found}
        click.echo(json_text({**files, "differences": list(found), "notes": list(found.notes)}))
    else:
        click.echo(found)
    if found:
        ctx.exit(1)


@click.command()
@FILE
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write: .svg, .png or .html."
)
@sizes
@CLASSES
def visualize(file: Path, output: Path, input_shape: str | None, dataset: Path | None, classes: int | None) -> None:
    """Draw the network in FILE, in a format of any backend: its layers from top to bottom, with the shapes between them.

    FILE may be the name of a network, see `multiseg models`.

    A network file written in Python is executed: load only files you trust.
    """
    from multiseg.topology.drawing import check_name

    check_name(output)
    topology_of(file, shape_of(input_shape, dataset), classes_of(dataset, classes)).to_svg(output)
    click.echo(output)


def shape_of(text: str | None, dataset: Path | None) -> tuple[int, int, int] | None:
    """Return the shape given by --input-shape or --dataset, None without either."""
    if text is not None and dataset is not None:
        raise click.UsageError("--input-shape and --dataset exclude each other")
    if dataset is not None:
        from multiseg.dataset import Dataset

        shape = Dataset.open(dataset).train.shape
        if shape is None:
            raise SettingsError(f"{dataset}: its images differ in size; specify --input-shape C,H,W")
        return shape
    if text is None:
        return None
    try:
        channels, height, width = (int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"--input-shape {text!r} is not of the form C,H,W, as in 1,32,32") from None
    return channels, height, width


def classes_of(dataset: Path | None, classes: int | None) -> int | None:
    """Return the number of classes given by --classes, else that of the labels of --dataset; None without either."""
    if classes is not None or dataset is None:
        return classes
    from multiseg.dataset import Dataset
    from multiseg.dataset.fitting import outputs_of

    return outputs_of(Dataset.open(dataset))[0]


def topology_of(file: Path, shape: tuple[int, int, int] | None, classes: int | None = None) -> Topology:
    """Describe the network in a file, or of a name, which then has ``classes`` outputs."""
    from multiseg.model_files import shipped
    from multiseg.model_files.reading import describe

    if shipped.find(file) is None:
        return describe(file, shape)
    return describe(file, shape or shipped.get(str(file)).input_shape, classes=classes)


def _print_table(topology: Topology) -> None:
    from rich.console import Console
    from rich.table import Table

    from multiseg.topology import summary

    table = Table()
    for number, heading in enumerate(summary.HEADINGS):
        table.add_column(heading, justify="right" if number > 3 else "left", overflow="fold")
    for layer in topology.layers:
        table.add_row(*summary.row(layer).cells)
    click.echo(summary.headline(topology))
    # rich assumes 80 columns if the output is no terminal
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)
