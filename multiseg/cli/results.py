"""``multiseg test-one``, ``test-list``, ``test-db``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from click.core import ParameterSource

from multiseg.cli.notation import message
from multiseg.cli.snapshots import SNAPSHOT
from multiseg.cli.tables import print_table
from multiseg.files import json_text, write_json
from multiseg.images import MOST_PIXELS, Exif, PixelConversion
from multiseg.layout import ChannelOrder, ImageOrder

if TYPE_CHECKING:  # the help of all commands imports this module
    from multiseg.inference.output import Output
    from multiseg.run.run import Run

MOST_CLASSES = 25  # printed by test-db; metrics.json has all
RUN = click.argument("run", type=click.Path(path_type=Path))
RESIZE = click.option(
    "--resize/--no-resize", default=True, help="Resize to the size of the dataset's images, or keep the size."
)
PIXELS = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"Refuse images of more pixels, before they are decoded.  [default: {MOST_PIXELS}; any number with --tile]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
FORMATS = click.Choice(["png", "npy", "lmdb"])
FORMAT = click.option(
    "--format",
    "kind",
    type=FORMATS,
    default="png",
    show_default=True,
    help="Images, arrays (C, H, W float32), or a dataset of inputs and outputs.",
)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of all three commands."""
    for each in reversed((
        click.option("--pad", is_flag=True, help="Pad to a size that the network keeps, and crop the output back."),
        click.option("--tile", type=click.IntRange(min=1), metavar="N",
                     help="Process images of more than N pixels per side in overlapping tiles, without seams."),
        click.option("--pixel-conversion", type=click.Choice(get_args(PixelConversion)), default="clip", show_default=True,
                     help="clip: cut values to 0..255; normalize: stretch to it."),
        click.option("--channel-order", type=click.Choice(get_args(ChannelOrder)),
                     help="Order in the output.  [default: the backend's]"),
        click.option("--data-order", type=click.Choice(get_args(ImageOrder)),
                     help="Order in the output.  [default: the backend's]"),
        click.option("--exif", type=click.Choice(get_args(Exif)),
                     help="Turn images by their EXIF orientation or not.  [default: as the dataset did]"),
        click.option("--show-input", is_flag=True, help="Write the input to the left of the output."),
        click.option("--overlay", is_flag=True,
                     help="Also write NAME-overlay.png, the input with the colours of the classes over it."),
        click.option("--opacity", type=click.FloatRange(0, 1), default=0.5, show_default=True,
                     help="Opacity of the colours of --overlay."),
        SNAPSHOT,
    )):  # fmt: skip
        command = each(command)
    return command


def open_run(folder: Path, snapshot: str | float) -> Run:
    """Open a run at a snapshot, ``last``, ``best`` or an epoch, and start its backend's process."""
    from multiseg.run.beginning import begin

    worker = begin(folder)
    try:
        from multiseg.run.run import Run

        run = Run.open(folder, snapshot)
    except BaseException:
        worker.close()
        raise
    run.adopt(worker)
    return run


@click.command()
@RUN
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Image file to write, or .npy; may be omitted for a network that classifies images.",
)
@RESIZE
@PIXELS
@options
@click.option(
    "--format",
    "kind",
    type=FORMATS,
    help="Image, array (C, H, W float32), or a dataset of input and output.  [default: by the extension of OUTPUT]",
)
@click.option(
    "--show-layers", is_flag=True, help="Also write OUTPUT-layers.html and .json: the activations of every layer."
)
@JSON
def test_one(
    run: Path,
    image: Path,
    output: Path | None,
    snapshot: str | float,
    show_input: bool,
    overlay: bool,
    opacity: float,
    kind: Any,
    show_layers: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the output of the network of RUN for one image.

    The output of a network that scores the classes of pixels is a palette PNG whose values are the classes. For a network that
    classifies images, print its best classes with their scores.
    """
    if show_layers and options["tile"]:
        raise click.UsageError("--show-layers computes the layers for a whole image; leave out --tile")
    overlay_opacity = _overlay(overlay, opacity, kind)
    with open_run(run, snapshot) as opened:
        from multiseg.inference.outputs import save_as, save_overlay  # while the process starts

        if output is None and (show_layers or show_input or overlay or not opened.classifies):
            raise click.UsageError("Missing option '-o' / '--output'.")
        result = opened.test_one(image, **options)
        written = [] if output is None else [save_as(result, output, kind, show_input)]
        if overlay_opacity is not None and written:
            written.append(save_overlay(result, written[0], overlay_opacity))
        if show_layers and output is not None:
            layers = opened.layers(image, **{name: options[name] for name in ("resize", "pad", "exif", "max_pixels")})
            page = layers.to_html(output.with_name(f"{output.stem}-layers.html"))
            written += [page, page.with_suffix(".json")]
    if as_json:
        click.echo(json_text({"run": str(run), **_facts(result, output), "files": [str(path) for path in written]}))
    else:
        if result.classifies:
            for index, score in result.best():
                click.echo(f"class {index}  score {score:.6g}")
        for path in written:
            click.echo(path)


def _check_folder(folder: Path) -> None:
    """Raise UsageError for a folder of outputs that is a dataset or a run, whose files would be mixed with them."""
    from multiseg.dataset.names import DATABASES
    from multiseg.run.reading import is_run

    kind = "a run" if is_run(folder) else "a dataset" if any((folder / name).is_dir() for name in DATABASES) else None
    if kind is not None:
        raise click.UsageError(f"-o {folder}: is {kind}; choose another folder for the outputs")


@click.command()
@RUN
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the outputs.")
@RESIZE
@PIXELS
@options
@FORMAT
@JSON
def test_list(
    run: Path,
    images: tuple[Path, ...],
    output: Path,
    snapshot: str | float,
    show_input: bool,
    overlay: bool,
    opacity: float,
    kind: Any,
    as_json: bool,
    **options: Any,
) -> None:
    """Test several images. An image that cannot be read is reported, the others are tested, and the exit status is 1."""
    from multiseg.inference.options import Options
    from multiseg.inference.output import Failure
    from multiseg.inference.outputs import writing
    from multiseg.inference.testing import test_list as outputs_of

    _check_folder(output)
    chosen = Options(**options)
    found: list[dict[str, Any]] = []
    overlay_opacity = _overlay(overlay, opacity, kind)
    with open_run(run, snapshot) as opened, writing(output, kind, show_input, overlay_opacity) as write:
        for number, result in enumerate(outputs_of(opened, images, chosen)):
            if isinstance(result, Failure):
                found.append({"image": str(result.source), "error": str(result.error)})
                click.echo(f"multiseg: {message(result.error)}", err=True)
                continue
            path = write(f"{number:04}-{images[number].stem}", result)
            found.append(_facts(result, path))
            if not as_json and result.classifies:
                click.echo(f"{result.source}: {_best(result)}")
            elif not as_json and kind != "lmdb":
                click.echo(path)
    failed = sum("error" in each for each in found)
    if as_json:
        click.echo(json_text({"run": str(run), "images": found, "failed": failed}))
    elif kind == "lmdb":
        click.echo(output)
    if failed:
        click.echo(f"multiseg: {failed} of {len(images)} images could not be tested", err=True)
        raise SystemExit(1)


class _Count(click.ParamType[Any]):
    """A whole number from 0, or all."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value == "all":
            return None
        try:
            count = int(value)
        except ValueError:
            count = -1
        if count < 0:
            self.fail(f"{value!r} is neither a whole number from 0 nor 'all'", param, ctx)
        return count


@click.command()
@RUN
@click.argument("database", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for metrics and outputs.")
@options
@FORMAT
@click.option("--images", type=_Count(), help="Number of outputs to write, or all.  [default: 32; lmdb: all]")
@JSON
def test_db(
    run: Path,
    database: Path,
    output: Path,
    snapshot: str | float,
    show_input: bool,
    overlay: bool,
    opacity: float,
    kind: Any,
    images: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Test a database, such as DATASET/val_db: loss and metrics over all of it, and outputs. DATASET alone is its val_db.

    Images are used in their stored size.
    """
    from multiseg.inference.outputs import writing

    _check_folder(output)
    source = click.get_current_context().get_parameter_source("images")
    most = 32 if kind != "lmdb" and source == ParameterSource.DEFAULT else images
    overlay_opacity = _overlay(overlay, opacity, kind)
    with open_run(run, snapshot) as opened, writing(output, kind, show_input, overlay_opacity) as write:

        def each(index: int, result: Output) -> None:
            if most is None or index < most:
                write(f"{index:08}", result)

        result = opened.test_db(database, each=None if most == 0 else each, **options)
    write_json(output / "metrics.json", result)
    if as_json:
        click.echo(json_text(result))
    else:
        click.echo("  ".join(f"{key} {value:.6g}" for key, value in result.items() if isinstance(value, int | float)))
        _print_classes(result)


def _overlay(overlay: bool, opacity: float, kind: str | None) -> float | None:
    """Return the opacity of the overlays to write, None for none.

    Raises UsageError for a format that has none, and for an opacity without overlays.
    """
    if not overlay and click.get_current_context().get_parameter_source("opacity") == ParameterSource.COMMANDLINE:
        raise click.UsageError("--opacity is that of the colours of --overlay; add --overlay")
    if overlay and kind == "lmdb":
        raise click.UsageError("--overlay writes pictures, --format lmdb a dataset; leave out one of them")
    return opacity if overlay else None


def _print_classes(result: dict[str, Any]) -> None:
    """Print the metrics of each class and the confusion matrix, if there are any, of a number of classes that fits a terminal."""
    if not 0 < len(result.get("confusion", ())) <= MOST_CLASSES:
        return
    shares = ("accuracy", "iou", "dice")
    rows = [
        [row["name"], *("–" if row[key] is None else f"{row[key]:.4f}" for key in shares), str(row["pixels"])]
        for row in result["per_class"]
    ]
    print_table(("class", *shares, "labels"), rows, right=(*shares, "labels"))
    names = [row["name"] for row in result["per_class"]]
    counts = [[name, *map(str, row)] for name, row in zip(names, result["confusion"], strict=True)]
    click.echo("confusion: rows are labels, columns are predictions")
    print_table(("", *names), counts, right=names, parted=True)


def _best(result: Output) -> str:
    return ", ".join(f"class {index} ({score:.4g})" for index, score in result.best())


def _facts(result: Output, path: Path | None) -> dict[str, Any]:
    """Return the facts about an output as plain values; shapes are (C, H, W)."""
    values = result.array
    return {
        "image": str(result.source),
        "output": None if path is None else str(path),
        "input_shape": list(result.input.shape),
        "shape": list(values.shape),
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": float(values.mean(dtype="float64")),
        **(
            {"classes": [{"class": index, "score": score} for index, score in result.best()]}
            if result.classifies
            else {}
        ),
        **({"class_pixels": result.class_pixels()} if result.labels is not None else {}),
    }
