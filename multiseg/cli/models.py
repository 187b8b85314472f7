"""``multiseg models``."""

from __future__ import annotations

import textwrap
from pathlib import Path

import click

from multiseg.cli.model import sizes
from multiseg.errors import SettingsError, setting
from multiseg.files import json_text


@click.command()
@click.argument("name", required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write a copy of the network file NAME, to change."
)
@click.option("--backend", help="Copy the file of this backend.  [default: by the extension of OUTPUT]")
@click.option("--classes", type=click.IntRange(min=1), metavar="N", help="Outputs.  [default: as listed]")
@sizes
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def models(
    name: str | None, output: Path | None, backend: str | None, classes: int | None, input_shape: str | None,
    dataset: Path | None, form: str, as_json: bool,
) -> None:  # fmt: skip
    """List the networks that can be chosen by name, as in `--model unet`, with their parameters and multiply-adds.

    They are counted for images of --input-shape, by default of the size that is listed, and for the classes of --dataset. With -o
    the network NAME is copied as a file, with --classes outputs, which may be changed and specified as --model FILE.
    """
    from multiseg.cli.model import classes_of, shape_of
    from multiseg.model_files import listing, shipped

    if output is not None:
        if name is None:
            raise SettingsError(f"{setting('output', str(output))}: specify the NAME of a network")
        click.echo(shipped.write(shipped.get(name), output, backend, classes_of(dataset, classes)))
        return
    chosen = list(shipped.MODELS.values()) if name is None else [shipped.get(name)]
    shape, count = shape_of(input_shape, dataset), classes_of(dataset, classes)
    rows = [listing.summary(model, shape, count) for model in chosen]
    if as_json or form == "json":
        click.echo(json_text(rows))
        return
    _print(rows)


def _print(rows: list[dict[str, object]]) -> None:
    """Print a block of short lines for each network, which are legible on any terminal."""
    for row in rows:
        shape = "x".join(map(str, row["input_shape"]))  # type: ignore[call-overload]
        click.echo(textwrap.fill(f"{row['name']}: {row['title']}", 80, subsequent_indent="  "))
        click.echo(f"  labels {row['labels']}, {row['outputs']} output{'s' if row['outputs'] != 1 else ''}")
        click.echo(
            f"  {row['parameters']:,} parameters\n  {row['multiply_adds']:,} multiply-adds for an image of {shape} (C x H x W)"
        )
