"""``multiseg describe`` and ``multiseg visualize``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from multiseg.cli.notation import visible
from multiseg.cli.tables import print_table
from multiseg.errors import SettingsError
from multiseg.files import json_text

if TYPE_CHECKING:  # the help of all commands imports this module
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
    "--classes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of classes of a network chosen by name, or of a file that leaves it open.  [default: those of --dataset]",
)
MODEL_OPTION = click.option(
    "--model-option",
    multiple=True,
    metavar="NAME=VALUE",
    help="Global variable that a Lua file reads, e.g. opt.depth=18; may be repeated.",
)
OUTPUTS = click.option(
    "--outputs",
    metavar="NAME[,NAME...]",
    help="Cut the network to these layers, named as `multiseg describe` lists them, and the layers they need.",
)


@click.command()
@FILE
@click.argument("other", required=False, type=click.Path(path_type=Path))
@sizes
@CLASSES
@MODEL_OPTION
@OUTPUTS
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Page (.html) to write: FILE and OTHER in one drawing."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@click.pass_context
def describe(
    ctx: click.Context, file: Path, other: Path | None, input_shape: str | None, dataset: Path | None,
    classes: int | None, model_option: tuple[str, ...], outputs: str | None, output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """List the layers of the network in FILE, in a format of any backend; with OTHER, list the differences of the two.

    FILE may be the name of a network, see `multiseg models`, or a class or function in a file, with Python literals as
    arguments: net.py:Net(classes=11), package.module:create(), net.lua:createModel.

    The exit status is 1 if they differ. With -o, a page shows both networks in one drawing: layers that are the same, changed
    with the parameters that differ, added or missing. A network file written in Python is executed: load only files you trust.
    """
    if output is not None:
        from multiseg.topology.difference_page import check_name

        if other is None:
            raise click.UsageError(
                "-o draws two networks, FILE and OTHER; use `multiseg visualize` to draw the network of one file"
            )
        check_name(output)
    shape = shape_of(input_shape, dataset)
    topology = topology_of(file, shape, dataset, classes, model_option, outputs)
    if other is None:
        if as_json:
            click.echo(json_text(topology.to_json()))
        else:
            _print_table(topology)
            for note in topology.notes:
                click.echo(visible(f"note: {note}"), err=True)
        return
    found = topology.diff(topology_of(other, shape, dataset, classes, model_option, outputs))
    if output is not None:
        found.to_html(output)
    if as_json:
        files = {"files": [str(file), str(other)], "equal": not found}
        click.echo(json_text({**files, "differences": list(found), "notes": list(found.notes)}))
    else:
        click.echo(visible(str(found)))
        if output is not None:
            click.echo(output)
    if found:
        ctx.exit(1)


@click.command()
@FILE
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write: .svg, .png or .html."
)
@sizes
@CLASSES
@MODEL_OPTION
@OUTPUTS
@click.option("--scale", type=float, help="Size of a .png.  [default: 2, less for a large network]")
def visualize(
    file: Path, output: Path, scale: float | None, input_shape: str | None, dataset: Path | None, classes: int | None,
    model_option: tuple[str, ...], outputs: str | None,
) -> None:  # fmt: skip
    """Draw the network in FILE, in a format of any backend: its layers from top to bottom, with the shapes between them.

    FILE is specified as in `multiseg describe`.

    A network file written in Python is executed: load only files you trust.
    """
    from multiseg.topology.drawing import check_name

    check_name(output)
    shape = shape_of(input_shape, dataset)
    topology_of(file, shape, dataset, classes, model_option, outputs).to_svg(output, scale)
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


def topology_of(
    file: Path, shape: tuple[int, int, int] | None, dataset: Path | None = None, classes: int | None = None,
    model_option: tuple[str, ...] = (), outputs: str | None = None,
) -> Topology:  # fmt: skip
    """Describe the network in a file, or of a name, for the classes that are specified, else those of a dataset."""
    from multiseg.model_files import shipped
    from multiseg.model_files.reading import describe

    if shipped.find(file) is not None:
        shape = shape or shipped.get(str(file)).input_shape
        return describe(
            file, shape, classes=classes_of(dataset, classes), model_options=options_of(model_option),
            outputs=names_of(outputs),
        )  # fmt: skip
    return describe(network_file(file, dataset, classes, model_option, outputs), shape)


def network_file(
    file: Path, dataset: Path | None, classes: int | None, model_option: tuple[str, ...], outputs: str | None = None
) -> Path:
    """Return the network file that is meant, with the classes that are specified, else those of the dataset's labels.

    ``outputs`` are the names of the outputs that it is cut to, separated by commas; None for all of it.
    """
    from multiseg.dataset import Dataset
    from multiseg.model_files import choosing, shipped
    from multiseg.network import CLASSES

    required = classes is not None
    if shipped.find(file) is not None or (dataset and Dataset.open(dataset).labels.kind == CLASSES):
        classes = classes_of(dataset, classes)
    return choosing.path_of(
        file, classes=classes, options=options_of(model_option), required=required, outputs=names_of(outputs)
    )


def names_of(text: str | None) -> tuple[str, ...]:
    """Return the names in the value of --outputs, none without one."""
    if text is None:
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise SettingsError(f"--outputs {text!r} is not of the form NAME or NAME,NAME")
    return names


def options_of(given: tuple[str, ...]) -> dict[str, Any]:
    """Return the values of --model-option: numbers, true and false, otherwise text."""
    options: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not (name.strip() and equals):
            raise SettingsError(f"--model-option {pair!r} is not of the form NAME=VALUE, as in opt.depth=18")
        value: Any = {"true": True, "false": False}.get(text, text)
        for read in (float, int):
            try:
                value = read(text)
            except ValueError:
                continue
        options[name.strip()] = value
    return options


def _print_table(topology: Topology) -> None:
    from multiseg.topology import summary

    click.echo(visible(summary.headline(topology)))
    print_table(summary.HEADINGS, (summary.row(layer).cells for layer in topology.layers), right=summary.HEADINGS[4:])
