"""The network of a parity check drawn with the share of its tolerance that each layer uses, and the rows of each layer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from multiseg.pages.pictures import embedded
from multiseg.parity import dropout
from multiseg.parity.detail import SHARES, Planes
from multiseg.parity.findings import Findings
from multiseg.parity.rows import ParityRow, percent, worst_steps
from multiseg.reference.bounded import Array
from multiseg.topology import Layer, drawing
from multiseg.topology.blocks import Block

# fill of a layer by the largest share of a tolerance, up to each limit
LEVELS = (
    (0.01, "#d9efdd", "up to 1 %"),
    (0.1, "#b5dfbe", "up to 10 %"),
    (0.5, "#f3eaa9", "up to 50 %"),
    (1.0, "#f8d08e", "up to 100 %"),
    (math.inf, "#f4a6a8", "beyond its bound"),
)
NOT_FINITE, NOT_COMPARED = ("#dcb8f2", "not finite"), (drawing.PAPER, "not compared")
PICTURES = 550_000  # characters of all pictures of a page
SMALLEST, LARGEST = 12, 64  # sides of a picture in pixels
BAR, HEIGHT = 10, 40  # width of a bar and height of a histogram


@dataclass(frozen=True)
class TensorPicture:
    """A part of a tensor as a PNG, ``width`` x ``height`` pixels, and the worst element's place in it in percent."""

    title: str
    uri: str
    width: int
    height: int
    left: float
    top: float


@dataclass(frozen=True)
class RowDetail:
    """A row with its histogram, as SVG paths of the bars within the tolerance and beyond it, and pictures of both tensors."""

    row: ParityRow
    within: str
    beyond: str
    words: str
    pictures: list[TensorPicture]
    part: str


@dataclass(frozen=True)
class LayerDetail:
    """A layer, the rows that are shown with their distribution, and further ones: ``others``."""

    anchor: str
    layer: Layer
    details: list[RowDetail]
    others: list[ParityRow]

    @property
    def ok(self) -> bool:
        """Whether all rows are within their tolerances."""
        return all(row.ok for row in (*self.others, *(each.row for each in self.details)))


@dataclass(frozen=True)
class ParityGraph:
    """The drawing, the details of its layers, and the key to its colours: fill and words."""

    svg: str
    layers: list[LayerDetail]
    key: list[tuple[str, str]]


def graph(parity: Findings) -> ParityGraph | None:
    """Return the drawing of the reference with the results of all sides; None if its description is unknown."""
    network = parity.network
    if network is None:
        return None
    rows = _rows_of_layers(network.layers, worst_steps(parity.rows))
    side = _side(sum(row.planes is not None for of_layer in rows.values() for row in of_layer))
    layers = []
    for number, layer in enumerate(network.layers):
        of_layer = rows[layer.outputs[0]]
        shown = sorted((row for row in of_layer if row.planes is not None), key=lambda row: row.ok)
        others = [row for row in of_layer if row.planes is None]
        layers.append(LayerDetail(f"layer-{number}", layer, [_detail(row, side) for row in shown], others))
    anchors = {each.layer.outputs[0]: each.anchor for each in layers}

    def box(block: Block) -> drawing.Mark | None:
        if not block.layers:
            return None
        key = block.layers[0].outputs[0]
        fill, line, sign = _mark(rows[key])
        return drawing.Mark(fill, sign, [line], f"#{anchors[key]}")

    svg = drawing.picture(network, drawing.Marks(box, apart=set(anchors))).to_svg()
    key = [*((fill, words) for _, fill, words in LEVELS), NOT_FINITE, NOT_COMPARED]
    return ParityGraph(svg, layers, key)


def _rows_of_layers(layers: Sequence[Layer], rows: Sequence[ParityRow]) -> dict[str, list[ParityRow]]:
    """Return the rows of each layer, by its first output: those of its outputs and of its parameters."""
    by_value = {name: layer.outputs[0] for layer in layers for name in layer.outputs}
    by_weight = {f"{layer.name}.{part}": layer.outputs[0] for layer in layers for part in layer.weights}
    by_layer = {layer.name: layer.outputs[0] for layer in layers}
    result: dict[str, list[ParityRow]] = defaultdict(list)
    for row in rows:
        names = by_value if row.stage in ("forward", "output") else by_weight
        if row.stage == dropout.STAGE and row.subject in by_layer:
            names = by_layer
        if row.subject in names:
            result[names[row.subject]].append(row)
    return result


def _mark(rows: Sequence[ParityRow]) -> tuple[str, str, str]:
    """Return colour, line and sign of a layer with these rows."""
    if not rows:
        return *NOT_COMPARED, ""
    if any(row.not_finite for row in rows):
        return *NOT_FINITE, "≠"
    share = max(row.share for row in rows)
    fill = next(fill for limit, fill, _ in LEVELS if share <= limit)
    if share <= 1:
        return fill, f"{percent(share)} of its bound", ""
    return fill, "incomparable" if math.isinf(share) else f"{percent(share)} its bound", "≠"


def _side(count: int) -> int:
    """Return the side of pictures so that those of ``count`` rows take about PICTURES characters."""
    each = PICTURES / max(3 * count, 1) / 1.4 - 100  # base64, and the rest of a PNG
    return int(min(max(math.sqrt(max(each, 0)), SMALLEST), LARGEST))


def _detail(row: ParityRow, side: int) -> RowDetail:
    paths = ["", ""]
    most = math.log1p(max(row.histogram, default=0)) or 1.0
    for number, count in enumerate(row.histogram):
        height = HEIGHT * math.log1p(count) / most
        if count:
            bar = f"M{number * BAR},{HEIGHT}v-{max(height, 1):.1f}h{BAR - 1}v{max(height, 1):.1f}z"
            paths[number > SHARES.index(1.0)] += bar
    limits = [
        *(percent(share).replace("< ", "") for share in SHARES[: SHARES.index(1.0) + 1]),
        "316 %",
        "1000 %",
        "more",
    ]
    counts = [f"{count:,} up to {limit}" for count, limit in zip(row.histogram, limits, strict=False) if count]
    assert row.planes is not None
    pictures, part = _pictures(row.planes, side)
    return RowDetail(row, paths[0], paths[1], "; ".join(counts), pictures, part)


def _pictures(planes: Planes, side: int) -> tuple[list[TensorPicture], str]:
    """Return pictures of both tensors on one scale and of the size of their difference, and which part of the plane they show."""
    row, column = planes.worst
    height, width = planes.expected.shape
    top, left = (max(0, min(at - side // 2, size - side)) for at, size in ((row, height), (column, width)))
    one, other = (each[top : top + side, left : left + side] for each in (planes.expected, planes.measured))
    rows, columns = one.shape
    finite = np.concatenate([each[np.isfinite(each)] for each in (one, other)])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    difference = np.abs(one.astype(np.float64) - other)
    largest = float(difference[np.isfinite(difference)].max(initial=0.0))
    place = 100 * (column - left + 0.5) / columns, 100 * (row - top + 0.5) / rows
    arrays = (
        ("reference", _grey(one, low, high)),
        ("framework", _grey(other, low, high)),
        ("difference", _grey(difference, 0.0, largest)),
    )
    first = planes.corner[0] + top, planes.corner[1] + left
    whole = (rows, columns) == planes.shape
    part = "" if whole else f"rows {first[0]} to {first[0] + rows - 1}, columns {first[1]} to {first[1] + columns - 1}"
    return [TensorPicture(title, embedded(image), columns, rows, *place) for title, image in arrays], part


def _grey(values: Array, low: float, high: float) -> Image.Image:
    """Return values as a grey picture from black at ``low`` to white at ``high`` or not finite."""
    scaled = (values.astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
    return Image.fromarray(np.rint(np.where(np.isfinite(scaled), np.clip(scaled, 0, 255), 255)).astype(np.uint8))
