"""``multiseg create-images``, ``create-dataset``, ``check-dataset`` and ``show-dataset``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("-c", "--count", default=10_000, show_default=True, help="How many pairs.")
@click.option("-s", "--size", default=32, show_default=True, help="Width and height in pixels.")
@click.option("-g", "--grid", default=10, show_default=True, help="Images in a row and in a column of grid.png.")
@click.option("--seed", type=int, help="The same seed gives the same images. Default: chosen at random.")
@_json
def create_images(out: Path, count: int, size: int, grid: int, seed: int | None, as_json: bool) -> None:
    """Draw random triangles into the new folder OUT: outlines in OUT/input, areas in OUT/target, and OUT/grid.png."""
    from multiseg.dataset import triangles

    with _progress("drawing") as progress:
        folder = triangles.create_images(out, count, size, grid, seed, progress)
    _say(
        as_json,
        {"path": str(folder), "count": count, "size": size, "grid": grid, "seed": seed},
        f"{folder}: {count} pairs of {size}x{size} images in input/ and target/, and grid.png",
    )


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--input", "input_folder", required=True, help="Folder of input images.")
@click.option("--target", required=True, help="Folder of target images, named like their inputs.")
@click.option("--val-percent", type=float, help="Percentage set aside for validation. [default: 10]")
@click.option("--val-input", help="Folder of input images for validation.")
@click.option("--val-target", help="Folder of target images for validation.")
@click.option("--channels", type=click.Choice(["none", "L", "RGB"]), default="none", show_default=True,
              help="Convert all images to grey (L) or RGB.")  # fmt: skip
@click.option("--feature-encoding", type=click.Choice(["png", "jpg", "none"]), default="png", show_default=True,
              help="How inputs are stored.")  # fmt: skip
@click.option("--label-encoding", type=click.Choice(["none", "png"]), default="none", show_default=True,
              help="How targets are stored.")  # fmt: skip
@click.option("--mixed-sizes", is_flag=True, help="Allow images of different sizes; there is no mean image then.")
@click.option("--seed", type=int, help="Seed of the shuffle before the split. Default: chosen, and kept in DIR.")
@click.option("--workers", type=int, help="How many processes encode. Default: one per core.")
@_json
def create_dataset(folder: Path, input_folder: str, as_json: bool, val_percent: float | None, **options: Any) -> None:
    """Create a dataset in the new folder DIR from a folder of inputs and one of targets.

    Images are found in nested folders too. A target has its input's name. The result does not depend on the number
    of workers.
    """
    from multiseg.dataset import Dataset

    if val_percent is not None and options["val_input"] is not None:
        raise click.UsageError("--val-percent and --val-input exclude each other")
    with _progress("encoding") as progress:
        dataset = Dataset.create(
            folder,
            input=input_folder,
            val_percent=10 if val_percent is None else val_percent,
            progress=progress,
            **options,
        )
    shape = dataset.train.shape
    size = f"of shape {'x'.join(map(str, shape))}" if shape else "of different sizes"
    _say(
        as_json,
        {"path": str(folder), **dataset.info},
        f"{folder}: {len(dataset.train)} pairs for training and {len(dataset.val)} for validation, {size}, "
        f"seed {dataset.info['seed']}",
    )


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@_json
@click.pass_context
def check_dataset(context: click.Context, folder: Path, as_json: bool) -> None:
    """Read all of the dataset DIR, ours or a DIGITS job's, and list what is wrong; exit 1 if anything is."""
    from multiseg.dataset import check

    with _progress("checking") as progress:
        report = check.check_dataset(folder, progress)
    if report.ok:
        counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
        text = f"{folder}: all is well: {counts}"
    else:
        text = "\n".join(
            [*report.problems, f"{folder}: {len(report.problems)} problem{'' if len(report.problems) == 1 else 's'}"]
        )
    _say(
        as_json,
        {
            "path": str(folder),
            "ok": report.ok,
            "problems": report.problems,
            "counts": report.counts,
            "content_hash": report.content_hash,
        },
        text,
    )
    if not report.ok:
        context.exit(1)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="File to write: .html or .png.")
@click.option(
    "-c", "--count", default=24, show_default=True, help="Pairs to show from each of training and validation."
)
@_json
def show_dataset(folder: Path, out: Path, count: int, as_json: bool) -> None:
    """Write a contact sheet of the dataset DIR: inputs, targets, and the one over the other."""
    from multiseg.dataset import Dataset
    from multiseg.dataset.sheet import write_sheet

    write_sheet(Dataset.open(folder), out, count)
    _say(as_json, {"path": str(folder), "out": str(out)}, f"{out}: contact sheet of {folder}")


@contextmanager
def _progress(verb: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar while the block runs, on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _say(as_json: bool, facts: dict[str, Any], text: str) -> None:
    click.echo(json.dumps(facts, indent=2) if as_json else text)
