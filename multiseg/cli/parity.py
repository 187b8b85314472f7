"""``multiseg parity``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from multiseg.cli.model import CLASSES, MODEL_OPTION, OUTPUTS, names_of, options_of
from multiseg.cli.train import deviations, numbers, weights_of_classes
from multiseg.errors import SettingsError
from multiseg.files import json_text
from multiseg.network import FLOAT32, PRECISIONS
from multiseg.settings.losses import LOSSES

if TYPE_CHECKING:  # the help of all commands imports this module
    from multiseg.parity import Parity

AS_PATH = click.Path(path_type=Path)


def _images(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    """Return a number of images, or "all"."""
    if value is None or value == "all":
        return value
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is not a number of images of at least 1, or all")
    return int(value)


@click.command()
@click.option(
    "--dataset", type=AS_PATH, help="Folder of the dataset whose batches are used; required without --against."
)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    help="Backend to compute with; may be repeated.  [default: all that can compute the model; with several models, theirs]",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    type=AS_PATH,
    help="Network file, its name, FILE.py:NAME(ARGUMENTS), run folder, or ONNX file of the first one; may be repeated.",
)
@click.option(
    "--weights", multiple=True, type=AS_PATH, help="Weights file or run: one for all, or one for each --model."
)
@CLASSES
@MODEL_OPTION
@OUTPUTS
@click.option(
    "--against",
    type=AS_PATH,
    metavar="GOLDEN.safetensors",
    help="Golden file to check against instead of a dataset: it has network, weights, batches and the reference's values.",
)
@click.option("--steps", type=int, help="Training steps to compare.  [default: 20]")
@click.option("--solver", help="A solver of the recipe equal.  [default: sgd]")
@click.option("--learning-rate", type=float, help="Base learning rate; it decreases to half.  [default: the recipe's]")
@click.option("--loss", type=click.Choice(list(LOSSES)), help="Loss.  [default: l2, or cross entropy of classes]")
@click.option("--loss-option", multiple=True, metavar="NAME=VALUE", help="A parameter of --loss; may be repeated.")
@click.option("--class-weights", metavar="WEIGHTS", help="As in `multiseg train`.")
@click.option("--batch-size", type=int, help="Images per step.  [default: 16, at most the number of images]")
@click.option(
    "--images",
    metavar="N|all",
    callback=_images,
    help="Number of training images to compare the layers' outputs for.  [default: those of the first batch]",
)
@click.option("--subtract-mean", type=click.Choice(["pixel", "image", "none"]), help="[default: pixel]")
@click.option("--divide-std", metavar="NUMBER,...", help="Standard deviation to divide by, as of `multiseg train`.")
@click.option("--seed", type=int, help="Seed of the initial weights and the order of the images.  [default: 1]")
@click.option("--threads", default=0, help="Number of threads per backend.  [default: all cores]")
@click.option("--no-lowering", is_flag=True, help="Do not compute convolutions as one matrix product.")
@click.option(
    "--precision",
    default=FLOAT32,
    show_default=True,
    help=f"Precision of the networks: {' or '.join(PRECISIONS)}, as of `multiseg train`.",
)
@click.option("--require-complete", is_flag=True, help="Also exit with status 1 if something could not be compared.")
@click.option(
    "--save", type=AS_PATH, metavar="GOLDEN.safetensors", help="Golden file to write, for later checks with --against."
)
@click.option(
    "--reduce",
    "parts",
    type=AS_PATH,
    metavar="DIR",
    help="New folder for the smallest part of each network that differs, with a program that shows it.",
)
@click.option("-o", "--output", type=AS_PATH, help="Page (.html) to write.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def parity(
    ctx: click.Context, dataset: Path | None, backends: tuple[str, ...], models: tuple[Path, ...],
    weights: tuple[Path, ...], against: Path | None, steps: int | None, solver: str | None,
    learning_rate: float | None, loss: str | None, loss_option: tuple[str, ...],
    class_weights: str | None, batch_size: int | None, subtract_mean: str | None, divide_std: str | None,
    classes: int | None, model_option: tuple[str, ...], outputs: str | None, seed: int | None,
    images: int | str | None, threads: int, no_lowering: bool, require_complete: bool, save: Path | None,
    parts: Path | None, precision: str, output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Check that networks compute and train alike in several frameworks, every number against a float64 reference.

    All networks get the same weights and batches. The output of every layer, the loss, every gradient and the weights after every
    step are compared; differences beyond rounding are listed by name, and so is what could not be compared. Without --model each
    backend computes its own FCN. The exit status is 1 if any difference is beyond rounding. A network file written in Python is
    executed: load only files you trust.

    An ONNX file (--model net.py --weights net.pt --model net.onnx) is computed by onnxruntime, with its own weights, and compared
    in prediction.

    --save keeps the reference in a golden file, and --against checks a single framework with it: on another machine, or later.
    It decides the settings of the training.
    """
    from rich.console import Console

    from multiseg.parity import check_parity

    if output is not None:
        check_page(output)
    errors = Console(stderr=True)
    with errors.status("") as status:
        parity = check_parity(
            dataset, list(backends), list(models), list(weights), steps, solver=solver, learning_rate=learning_rate,
            loss=loss, loss_options=numbers(loss_option, "--loss-option"), class_weights=weights_of_classes(class_weights),
            batch_size=batch_size, subtract_mean=subtract_mean, divide_std=deviations(divide_std), seed=seed, threads=threads,
            lowering=not no_lowering, progress=status.update, classes=classes, model_options=options_of(model_option),
            outputs=names_of(outputs), save=save, against=against, reduce=parts, images=images, precision=precision,
        )  # fmt: skip
    if output is not None:
        parity.to_html(output)
    if as_json:
        click.echo(json_text(parity.to_dict()))
    else:
        _print(parity)
        if output is not None:
            click.echo(output)
    if not parity.ok or (require_complete and not parity.complete):
        ctx.exit(1)


def check_page(path: Path) -> None:
    """Raise SettingsError if no page can be written to ``path``, before anything is computed for it."""
    if path.suffix != ".html":
        raise SettingsError(f"{path}: a page has a name ending in .html")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SettingsError(
            f"{path}: {'is a folder' if path.is_dir() else 'its folder does not exist; create it first'}"
        )


def _print(parity: Parity) -> None:
    from multiseg.cli.tables import Cell, print_table
    from multiseg.parity.rows import TITLES, figures, rows_by_stage

    click.echo(
        "Largest differences from float64, and the largest fraction of the tolerance, which is what rounding can add up to."
    )
    for stage, names in rows_by_stage(parity.rows).items():
        if stage == "network":
            continue
        rows: list[list[Cell]] = []
        for name, by_side in names.items():
            cells = [by_side.get(side) for side in parity.sides]
            rows.append(
                [name, *(("", "") if row is None else (figures(row), "" if row.ok else "bold red") for row in cells)]
            )
        print_table(("", *parity.sides), rows, parity.sides, TITLES[stage], parted=True)
    for each in parity.left_out:
        click.echo(f"not compared: {each}")
    for note in parity.notes:
        click.echo(f"note: {note}")
    for part in parity.reduced:
        click.echo(f"reduced: {part}")
    click.echo(("agrees: " if parity.ok else "differs: ") + parity.headline)
    if not parity.ok:
        for line in parity.differences[1:]:
            click.echo(f"         {line}")
