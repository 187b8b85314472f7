"""``multiseg convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from multiseg.cli.model import CLASSES, MODEL_OPTION, OUTPUTS, names_of, network_file, shape_of, sizes
from multiseg.cli.notation import visible
from multiseg.cli.snapshots import SNAPSHOT
from multiseg.errors import SettingsError
from multiseg.files import json_text

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("source", metavar="RUN|WEIGHTS", type=FILE)
@click.option(
    "--to", required=True, help="Format: safetensors, caffemodel, pt (PyTorch state_dict) or tf (checkpoint)."
)
@click.option("-o", "--output", required=True, type=FILE, help="File to write; for a checkpoint, its prefix.")
@click.option("--network", type=FILE, help="Network file that the weights are written for.  [default: see above]")
@click.option("--source-network", type=FILE, help="Network file that WEIGHTS belong to; a run contains its own.")
@click.option("--with-network", type=FILE, help="Also write the network, as `multiseg export` does.")
@click.option(
    "--map",
    "pairs",
    multiple=True,
    metavar="OLD=NEW",
    help="Layer or parameter, and its name in the other network; may be repeated.",
)
@click.option(
    "--channels", type=click.Choice(["image", "keep"]), default="image", show_default=True,
    help="image: reorder colour channels so that the output for an image stays the same; keep: keep the arrays.",
)  # fmt: skip
@SNAPSHOT
@sizes
@CLASSES
@MODEL_OPTION
@OUTPUTS
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def convert(
    source: Path, to: str, output: Path, network: Path | None, source_network: Path | None, with_network: Path | None,
    pairs: tuple[str, ...], channels: Literal["image", "keep"], snapshot: str | float, input_shape: str | None,
    dataset: Path | None, classes: int | None, model_option: tuple[str, ...], outputs: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Write the weights of a run, or of a weights file of any framework, as another framework's weights file.

    They are written for --network; without it, for the file that `multiseg export` writes for the network of the run, or for
    --source-network (--with-network writes that file too). If no network is known, they keep their names. Parameters are matched
    by --map, then by the structure of both networks, then by name or by shape. A network file written in Python is executed:
    load only files you trust. Network files may be specified as in `multiseg describe`, FILE.py:NAME(ARGUMENTS).
    """
    from multiseg import conversion
    from multiseg.dataset import Dataset

    networks = [
        None if file is None else network_file(file, dataset, classes, model_option)
        for file in (network, source_network)
    ]
    found = conversion.convert(
        source, to, output, network=networks[0], source_network=networks[1], map=dict(map(_pair, pairs)),
        channels=channels, input_shape=shape_of(input_shape, dataset),
        label_shape=Dataset.open(dataset).train.label_shape if dataset else None,
        snapshot=snapshot, with_network=with_network,
        outputs=names_of(outputs),
    )  # fmt: skip
    for note in found.notes:
        click.echo(visible(f"note: {note}"), err=True)
    click.echo(json_text(found.to_json()) if as_json else found)


def _pair(text: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not (old and sign and new):
        raise SettingsError(f"--map {text!r} is not of the form OLD=NEW, as in conv1=features.0")
    return old, new
