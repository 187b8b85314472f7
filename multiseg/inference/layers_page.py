"""A page of a network's layers: pictures of what they make and of their parameters, with statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from multiseg._version import __version__
from multiseg.inference.activations import Activations
from multiseg.inference.statistics import Statistics
from multiseg.layout import Array, Floats
from multiseg.pages import pictures, templates
from multiseg.pages.numbers import significant

MOST_TILES = 64  # pictures of one layer or parameter; of more, so many from all over it are shown
WIDEST = 900  # pixels of a row of them
LARGEST = 128  # pixels of a side of one; larger ones are shrunk
GAP = 1
ENLARGED = 48  # small tiles are shown at least about this size


@dataclass(frozen=True)
class ArrayEntry:
    """One layer's activations or one parameter: its picture, how it is to be enlarged, and its figures."""

    name: str
    statistics: Statistics
    picture: str
    width: int
    shown: str


def render(layers: Activations) -> str:
    """The page's text."""
    environment = templates.environment("multiseg.inference")
    environment.filters["figure"] = significant
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment.get_template("layers.html.j2").render(
        layers=layers,
        input=pictures.picture(layers.input),
        parts=[
            ("Activations", "layer", list(_entries(layers.activations))),
            ("Parameters", "parameter", list(_entries(layers.weights))),
        ],
        css=files("multiseg.pages").joinpath("page.css").read_text(encoding="utf-8"),
        version=__version__,
    )


def _entries(arrays: Mapping[str, Floats]) -> Iterator[ArrayEntry]:
    for name, values in arrays.items():
        tiles = _tiles(values)
        chosen = np.linspace(0, len(tiles) - 1, min(len(tiles), MOST_TILES)).astype(int)
        tiles_shown = _shrunk(tiles[chosen])
        sheet = _sheet(tiles_shown)
        scale = max(1, ENLARGED // max(tiles_shown.shape[1:])) if values.ndim > 1 else 8
        one = "map" if values.ndim == 3 else "kernel"
        shown = f"{len(chosen)} of {len(tiles):,} {one}s" if len(chosen) < len(tiles) else ""
        # a parameter without planes is one picture, its values side by side
        yield ArrayEntry(name, Statistics.of(values), pictures.signed(sheet), sheet.shape[1] * scale, shown)


def _tiles(values: Floats) -> Floats:
    """(N, H, W): a layer's maps, a convolution's kernels, or values without planes as one picture of rows."""
    if values.ndim >= 3:
        return values.reshape(-1, *values.shape[-2:])
    if values.ndim == 2:
        return values[None]
    columns = min(values.size, 64)
    rows = math.ceil(values.size / columns) if columns else 0
    padded = np.full(rows * columns, np.nan, np.float32)
    padded[: values.size] = values.ravel()
    return padded.reshape(1, rows, columns)


def _shrunk(tiles: Floats) -> Floats:
    """Tiles of at most LARGEST pixels a side: means of squares; a rest below and right that fills none is cut off."""
    factor = math.ceil(max(tiles.shape[1:]) / LARGEST)
    height, width = (max(1, size // factor) for size in tiles.shape[1:])
    if factor == 1 or min(tiles.shape[1:]) < factor:
        return tiles
    cut = tiles[:, : height * factor, : width * factor]
    made: Floats = cut.reshape(len(tiles), height, factor, width, factor).mean(axis=(2, 4))
    return made


def _sheet(tiles: Floats) -> Array:
    """Tiles side by side in rows, NaN between them."""
    count, height, width = tiles.shape
    columns = max(
        1, min(math.ceil(math.sqrt(count * (height + GAP) / (width + GAP) * 2)), WIDEST // (width + GAP), count)
    )
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP), np.nan, np.float32)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + GAP), number % columns * (width + GAP)
        sheet[top : top + height, left : left + width] = tile
    return sheet
