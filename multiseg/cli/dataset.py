"""``multiseg create-images``, ``create-dataset``, ``check-dataset`` and ``show-dataset``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import click

from multiseg.cli.notation import message
from multiseg.dataset import scenes
from multiseg.dataset.encodings import LabelEncoding, RecordEncoding
from multiseg.errors import MultisegWarning
from multiseg.files import json_text
from multiseg.images import MOST_PIXELS, Channels, Exif
from multiseg.network import IMAGES, LabelKind

_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")


def _defaults(name: str) -> str:
    """Return the default of a number of create-images in each scene, for the help."""
    return ", ".join(f"{getattr(scene, name)} ({key})" for key, scene in scenes.SCENES.items())


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--scene", type=click.Choice(list(scenes.SCENES)), default="triangles", show_default=True,
              help="What is drawn: triangles as in the tutorial; shapes of six classes on textured backgrounds, with ignored "
              "borders; or cells, 16-bit images of which about 2 % are foreground.")  # fmt: skip
@click.option("-c", "--count", type=int, help=f"Number of pairs of images.  [default: {_defaults('count')}]")
@click.option("-s", "--size", type=int, help=f"Width and height in pixels.  [default: {_defaults('size')}]")
@click.option("-g", "--grid", type=int,
              help=f"Number of images per row and per column of grid.png.  [default: {_defaults('grid')}]")  # fmt: skip
@click.option("--seed", type=int, help="Seed of the random numbers.  [default: random]")
@_json
def create_images(
    out: Path, scene: str, count: int | None, size: int | None, grid: int | None, seed: int | None, as_json: bool
) -> None:
    """Draw pairs of synthetic images into the new folder OUT: OUT/input, OUT/target, and OUT/grid.png.

    The default is the tutorial's random triangles, outlines as inputs and filled as targets. The other scenes are for class
    segmentation; OUT/classes.txt has the names of the classes, for create-dataset --labels classes --classes FILE.
    """
    with _progress("drawing") as progress:
        folder = scenes.create_images(out, count, size, grid, seed, progress, scene)
    chosen = scenes.SCENES[scene]
    facts = {
        "count": chosen.count if count is None else count,
        "size": chosen.size if size is None else size,
        "grid": chosen.grid if grid is None else grid,
    }
    names = f", classes {', '.join(chosen.classes)} in classes.txt" if chosen.classes else ""
    _say(
        as_json,
        {"path": str(folder), **facts, "seed": seed, "scene": scene},
        "{}: {count} pairs of {size}x{size} images in input/ and target/, and grid.png{}".format(
            folder, names, **facts
        ),
    )


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--input", "input_folder", help="Folder of input images.")
@click.option("--target", help="Folder of target images, with the same names as their inputs.")
@click.option("--voc", metavar="FOLDER",
              help="Folder in PASCAL VOC's layout, in place of --input and --target: 21 classes, borders ignored.")  # fmt: skip
@click.option("--val-percent", type=float, help="Percentage of the pairs for validation.  [default: 10]")
@click.option("--val-input", help="Folder of input images for validation.")
@click.option("--val-target", help="Folder of target images for validation.")
@click.option("--input-ending", default="", metavar="TEXT",
              help="End of the names of inputs before the extension, e.g. _leftImg8bit; others are left out.")  # fmt: skip
@click.option("--target-ending", default="", metavar="TEXT",
              help="End of the names of targets before the extension, e.g. _mask; others are left out.")  # fmt: skip
@click.option("--channels", type=click.Choice(get_args(Channels)), default="none", show_default=True,
              help="Convert all images to greyscale (L) or RGB.")  # fmt: skip
@click.option("--feature-encoding", type=click.Choice(get_args(RecordEncoding)), default="png", show_default=True,
              help="Encoding of the inputs.")  # fmt: skip
@click.option("--label-encoding", type=click.Choice(get_args(LabelEncoding)), default="none", show_default=True,
              help="Encoding of the targets.")  # fmt: skip
@click.option("--labels", type=click.Choice(get_args(LabelKind)), default=IMAGES, show_default=True,
              help="What the targets are: pictures or binary masks, or masks of class indices.")  # fmt: skip
@click.option("--classes", metavar="FILE", help="Names of the classes, one in each line.")
@click.option("--colours", metavar="FILE|palette",
              help="Colours of the classes, one R G B in each line, or those of palette images.")  # fmt: skip
@click.option("--ignore", metavar="LABEL|none", default="255", show_default=True,
              help="Label of pixels that count in no loss and no metric, in masks of class indices.")  # fmt: skip
@click.option("--label-map", metavar="FILE|255:1,...",
              help="Labels of the values or colours in masks: lines such as '7 0' or '128 64 128 0'.")  # fmt: skip
@click.option("--label-channels", type=click.Choice(get_args(Channels)),
              help="Convert targets that are pictures.  [default: as --channels]")  # fmt: skip
@click.option("--foreground", metavar="dark|light|VALUE",
              help="The object in binary masks.  [default: dark; 1 in masks of 0 and 1]")  # fmt: skip
@click.option("--mixed-sizes", is_flag=True, help="Allow images of different sizes; there is no mean image then.")
@click.option("--seed", type=int, help="Seed of the shuffle before the split.  [default: random, stored in DIR]")
@click.option("--exif", type=click.Choice(get_args(Exif)), default="apply", show_default=True,
              help="Turn images by their EXIF orientation, or read them as they are stored.")  # fmt: skip
@click.option("--max-pixels", type=click.IntRange(min=1), default=MOST_PIXELS, show_default=True, metavar="N",
              help="Refuse images of more pixels, before they are decoded.")  # fmt: skip
@click.option("--workers", type=int, help="Number of encoding processes.  [default: one per core]")
@_json
def create_dataset(
    folder: Path, input_folder: str | None, as_json: bool, val_percent: float | None, **options: Any
) -> None:
    """Create a dataset in the new folder DIR from a folder of inputs and one of targets, or from one in PASCAL VOC's layout.

    Folders are searched recursively. A target has the name of its input. The result does not depend on the number of
    workers.
    """
    from multiseg.dataset import Dataset

    if val_percent is not None and options["val_input"] is not None:
        raise click.UsageError("--val-percent and --val-input exclude each other")
    if val_percent is not None and options["voc"] is not None:
        raise click.UsageError(
            "--val-percent and --voc exclude each other: the lists of the folder state the validation images"
        )
    for name in ("ignore", "foreground"):
        options[name] = _number(options[name])
    with _progress("encoding") as progress, _printed_warnings():
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
        f"seed {dataset.info['seed']}{''.join(_notes(dataset.info))}",
    )


def _notes(info: dict[str, Any]) -> Iterator[str]:
    """Yield what was done to the images of a new dataset, and which files were left out, each as a line with its line end."""
    from multiseg.dataset.pairs import left_out_text

    texts = {"exif orientation": "turned by their EXIF orientation", "transparency": "laid over white for transparency"}
    for name, text in texts.items():
        if info["applied"].get(name):
            yield f"\n{info['applied'][name]} images {text}"
    if info["values"] == "float32":
        yield "\ninputs have values of more than 8 bits, stored as float_data"
    for name, counts in info["left_out"].items():
        yield f"\nleft out in {info[name]}: {left_out_text(counts)}"


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@_json
@click.pass_context
def check_dataset(context: click.Context, folder: Path, as_json: bool) -> None:
    """Read the whole dataset DIR, of multiseg or of a DIGITS job, and list its problems.

    The exit status is 1 if there are any.
    """
    from multiseg.dataset import check

    with _progress("checking") as progress, _printed_warnings():
        report = check.check_dataset(folder, progress)
    if report.ok:
        counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
        ranges = [
            "{}: {}, {:.6g} to {:.6g}, mean {:.6g}".format(name, *values.values())
            for name, values in report.values.items()
        ]
        text = "\n".join([f"{folder}: no problems: {counts}", *ranges, *report.label_lines])
    else:
        count = f"{folder}: {len(report.problems)} problem{'' if len(report.problems) == 1 else 's'}"
        pixels = report.label_lines if report.labels.kind == "classes" else []
        text = "\n".join([*report.problems, *pixels, count])
    _say(
        as_json,
        {
            "path": str(folder),
            "ok": report.ok,
            "problems": report.problems,
            "counts": report.counts,
            "content_hash": report.content_hash,
            "labels": report.labels.to_json(),
            "label_values": {name: check.to_json() for name, check in report.label_checks.items()},
            "values": report.values,
        },
        text,
    )
    if not report.ok:
        context.exit(1)


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="File to write: .html or .png.")
@click.option("-c", "--count", default=24, show_default=True, help="Number of pairs of each split.")
@_json
def show_dataset(folder: Path, out: Path, count: int, as_json: bool) -> None:
    """Write a contact sheet of the dataset DIR: inputs, targets, and both overlaid."""
    from multiseg.dataset import Dataset
    from multiseg.dataset.sheet import write_sheet

    with _printed_warnings():
        write_sheet(Dataset.open(folder), out, count)
    _say(as_json, {"path": str(folder), "out": str(out)}, f"{out}: contact sheet of {folder}")


@contextmanager
def _printed_warnings() -> Iterator[None]:
    """Print the warnings of the block on standard error, with this command's options in the place of settings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        text = warning.message
        click.echo(f"warning: {message(text) if isinstance(text, MultisegWarning) else text}", err=True)


def _number(text: str | None) -> int | str | None:
    """Return the number of an option that also takes words; ``none`` is None."""
    if text is None or text.lower() == "none":
        return None
    try:
        return int(text)
    except ValueError:
        return text


@contextmanager
def _progress(verb: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar while the block runs, on a terminal only."""
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
    click.echo(json_text(facts) if as_json else text)
