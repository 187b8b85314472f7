"""``multiseg test-one``, ``test-list``, ``test-db``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

RUN = click.argument("run", type=click.Path(path_type=Path))
RESIZE = click.option(
    "--resize/--no-resize", default=True, help="Resize to the dataset's size, or take the image as it is."
)
CONVERSION = click.option(
    "--pixel-conversion",
    type=click.Choice(["clip", "normalize"]),
    default="clip",
    show_default=True,
    help="clip: cut values to 0..255; normalize: stretch to it.",
)
SNAPSHOT = click.option("--snapshot", default="last", show_default=True, help="last, best, or an epoch.")


def open_run(folder: Path, snapshot: str) -> Any:
    """The run, at a snapshot given in words or as an epoch."""
    from multiseg.run import Run

    return Run.open(folder, int(snapshot) if snapshot.isdigit() else snapshot)


@click.command()
@RUN
@click.argument("image", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Picture to write (.png).")
@RESIZE
@CONVERSION
@SNAPSHOT
def test_one(run: Path, image: Path, output: Path, resize: bool, pixel_conversion: Any, snapshot: str) -> None:
    """Show what the network of RUN makes of one image."""
    from multiseg.images import save_image

    with open_run(run, snapshot) as opened:
        save_image(opened.test_one(image, resize, pixel_conversion).image, output)
    click.echo(output)


@click.command()
@RUN
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the pictures.")
@RESIZE
@CONVERSION
@SNAPSHOT
def test_list(
    run: Path, images: tuple[Path, ...], output: Path, resize: bool, pixel_conversion: Any, snapshot: str
) -> None:
    """Test several images; one that cannot be read is reported, the others are done, and the exit status is 1."""
    from multiseg.errors import ImageError, ModelError
    from multiseg.images import save_image

    failed = 0
    with open_run(run, snapshot) as opened:
        output.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            try:
                result = opened.test_one(image, resize, pixel_conversion)
            except (ImageError, ModelError) as error:
                failed += 1
                click.echo(f"multiseg: {error}", err=True)
                continue
            path = output / f"{number:04}-{image.stem}.png"
            save_image(result.image, path)
            click.echo(path)
    if failed:
        raise SystemExit(1)


@click.command()
@RUN
@click.argument("database", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for metrics and pictures.")
@click.option("--images", default=32, show_default=True, help="How many pictures of outputs to write.")
@SNAPSHOT
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
def test_db(run: Path, database: Path, output: Path, images: int, snapshot: str, as_json: bool) -> None:
    """Test a database such as DATASET/val_db/features: loss and metrics over all of it, pictures of the first few."""
    from multiseg.dataset import open_split
    from multiseg.files import write_json
    from multiseg.images import save_image, to_image

    split = open_split(database)
    with open_run(run, snapshot) as opened:
        result = opened.test_db(database)
        output.mkdir(parents=True, exist_ok=True)
        for index in range(min(images, len(split))):
            features, _ = split.read([index])
            save_image(to_image(opened.predict(features)[0], "clip"), output / f"{index:08}.png")
    write_json(output / "metrics.json", result)
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo("  ".join(f"{key} {value:.6g}" for key, value in result.items() if value is not None))
