"""Render a page of a network's layers: pictures of their activations and parameters, with statistics."""

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

MOST_TILES = 64  # tiles per layer or parameter; if there are more, this many at regular intervals are shown
WIDEST = 900  # width of a row of tiles, in pixels
LARGEST = 128  # side of a tile in pixels; larger ones are shrunk
GAP = 1  # pixels between tiles
ENLARGED = 48  # small tiles are enlarged to about this size, in pixels


@dataclass(frozen=True)
class ArrayEntry:
    """One layer's activations or one parameter: its picture with the displayed width, and its statistics."""

    name: str
    statistics: Statistics
    picture: str
    width: int
    shown: str


def render(layers: Activations) -> str:
    """Return the HTML text of the page."""
    environment = templates.environment("multiseg.inference")
    environment.filters["figure"] = significant
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment.get_template("layers.html.j2").render(
        layers=layers,
        input=pictures.image(layers.input),
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
        # a parameter with fewer than two axes is one picture of its values
        yield ArrayEntry(name, Statistics.of(values), pictures.signed(sheet), sheet.shape[1] * scale, shown)


def _tiles(values: Floats) -> Floats:
    """Return tiles (N, H, W): feature maps, convolution kernels, or one tile of a matrix or of a vector split into rows."""
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
    """Return tiles shrunk to at most LARGEST pixels a side by averaging squares; incomplete squares at the edge are cut off."""
    factor = math.ceil(max(tiles.shape[1:]) / LARGEST)
    height, width = (max(1, size // factor) for size in tiles.shape[1:])
    if factor == 1 or min(tiles.shape[1:]) < factor:
        return tiles
    cut = tiles[:, : height * factor, : width * factor]
    means: Floats = cut.reshape(len(tiles), height, factor, width, factor).mean(axis=(2, 4))
    return means


def _sheet(tiles: Floats) -> Array:
    """Return one array with the tiles arranged in rows, with NaN between them."""
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
