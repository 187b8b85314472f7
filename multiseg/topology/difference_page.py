"""The page of a graph diff: two networks in one drawing, with the parameters that differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from multiseg._version import __version__
from multiseg.errors import SettingsError
from multiseg.files import write_text
from multiseg.topology import drawing, words
from multiseg.topology.blocks import Block, blocks
from multiseg.topology.comparison import NetworkDifference
from multiseg.topology.graph_page import policy, script, style, template
from multiseg.topology.layer import Layer
from multiseg.topology.merging import ADDED, CHANGED, MISSING, SAME, STATES, MergedLayer, MergedNetworks, merge

MOST_LINES = 5  # differences of a layer that its box lists
LONGEST = 60  # characters of such a line
FILLS = {CHANGED: "#ffdf9e", ADDED: "#b5e6c4", MISSING: "#f6c3c4", SAME: "#eceef1"}
SIGNS = {CHANGED: "≠", ADDED: "+", MISSING: "−", SAME: ""}
LINES = {ADDED: "#2a8f58", MISSING: "#d1495b"}  # colours of lines that only one network has


@dataclass(frozen=True)
class Fact:
    """One row of the table of a layer: the texts for both networks, None where the layer or the parameter is missing."""

    name: str
    one: str | None
    other: str | None
    differs: bool


@dataclass(frozen=True)
class ShownLayer:
    """A layer with its ``anchor``, the identifier in the page, and the rows of its table."""

    anchor: str
    merged: MergedLayer
    facts: list[Fact]


def write(difference: NetworkDifference, path: str | Path) -> Path:
    """Write the page of two networks and return its path. Raises SettingsError for an extension other than .html."""
    path = Path(path)
    check_name(path)
    write_text(path, render(difference))
    return path


def check_name(path: Path) -> None:
    """Raise SettingsError if a file's name does not end in .html."""
    if path.suffix.lower() != ".html":
        raise SettingsError(f"{path}: the drawing of two networks is a page; its name must end in .html")


def render(difference: NetworkDifference) -> str:
    """Return the page as HTML without references to other files."""
    merged = merge(*difference.networks)
    counts = Counter(layer.state for layer in merged.layers.values())
    return template("difference.html.j2").render(
        difference=difference,
        headline=_headline(difference, counts),
        svg=drawing.picture(merged.drawing, _marks(merged)).to_svg(),
        boxes=_boxes(merged),
        merged=merged,
        counts=[(state, FILLS[state], SIGNS[state], counts[state]) for state in STATES],
        summaries=[_summary(difference, side) for side in (0, 1)],
        style=style(),
        script=script(),
        policy=policy(script()),
        version=__version__,
    )


def _headline(difference: NetworkDifference, counts: Counter[str]) -> str:
    if not difference:
        return f"{difference.one} and {difference.other} hold the same network"
    parts = [f"{counts[state]} {state}" for state in STATES if counts[state] and state != SAME]
    if not parts:
        return f"The layers of {difference.one} and {difference.other} are the same; the networks are not"
    return f"{difference.one} and {difference.other}: of {sum(counts.values())} layers {words.listed(parts)}"


def _summary(difference: NetworkDifference, side: int) -> dict[str, str]:
    network = difference.networks[side]
    return {
        "file": network.source,
        "format": network.kind,
        "input": ", ".join(map(words.size, network.inputs.values())),
        "layers": f"{len(network.layers)}",
        "weights": f"{network.parameter_count:,}",
        "multiply-adds per image": words.quantity(network.multiply_adds),
        "loss": network.loss or "none in the file",
    }


def _boxes(merged: MergedNetworks) -> list[list[ShownLayer]]:
    """Return the layers of each box of the drawing."""
    boxes = [block.layers for block in blocks(merged.drawing, _notable(merged)) if block.layers]
    keys = [[layer.outputs[0] for layer in box] for box in boxes]
    return [
        [ShownLayer(_anchor(key), merged.layers[key], list(_facts(merged.layers[key]))) for key in box] for box in keys
    ]


def _notable(merged: MergedNetworks) -> set[str]:
    """Return the layers that are not the same in both networks."""
    return {key for key, layer in merged.layers.items() if layer.state != SAME}


def _anchor(key: str) -> str:
    """Return the identifier of a layer in the page, which has no part of its name."""
    return key.replace(" ", "-")


def _marks(merged: MergedNetworks) -> drawing.Marks:
    def box(block: Block) -> drawing.Mark | None:
        if not block.layers:
            return None
        layer = merged.layers[block.layers[0].outputs[0]]
        lines = [_shortened(change.short) for change in layer.changes if layer.state == CHANGED]
        if len(lines) > MOST_LINES:
            lines[MOST_LINES - 1 :] = [f"and {len(lines) - MOST_LINES + 1} more differences"]
        shapes = [" | ".join(map(words.size, each.shapes)) for each in (layer.one, layer.other) if each]
        last = merged.layers[block.layers[-1].outputs[0]]
        if len(block.layers) > 1 and last.one and last.other:
            shapes = [" | ".join(map(words.size, each.shapes)) for each in (last.one, last.other)]
        return drawing.Mark(
            FILLS[layer.state], SIGNS[layer.state], lines, f"#{_anchor(block.layers[0].outputs[0])}",
            " → ".join(dict.fromkeys(shapes)),
        )  # fmt: skip

    def line(source: Block, reader: Block) -> tuple[str, bool]:
        name = source.layers[-1].outputs[0] if source.layers else source.input
        sides = merged.sides[name, reader.layers[0].outputs[0]]
        if sides == {0, 1}:
            return drawing.GREY, False
        layers = [merged.layers[key] for key in (name, reader.layers[0].outputs[0]) if key in merged.layers]
        return LINES[ADDED if 1 in sides else MISSING], all(None not in (each.one, each.other) for each in layers)

    return drawing.Marks(box, line, _notable(merged))


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _facts(layer: MergedLayer) -> Iterator[Fact]:
    """Yield the rows of a layer's table: type, inputs, parameters, output, and the shapes of its weights."""
    changed = {change.key for change in layer.changes}
    sides = [_texts(each) if each else {} for each in (layer.one, layer.other)]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        texts = [side.get(key) for side in sides]
        if texts != [None, None]:
            name = words.name(key, layer.layer.type)
            differs = key in changed or (key == "pads" and "divisors" in changed)
            yield Fact(name, texts[0], texts[1], differs and layer.state == CHANGED)


def _texts(layer: Layer) -> dict[str, str | None]:
    parameters = {key: None if value is None else words.value(key, value) for key, value in layer.parameters.items()}
    weights = ", ".join(f"{part} {words.size(shape) or '1'}" for part, shape in layer.weights.items())
    count = sum(map(math.prod, layer.weights.values()))
    return {
        "layer": layer.name,
        "type": layer.type,
        "inputs": ", ".join(layer.inputs),
        **parameters,
        "output": ", ".join(map(words.size, layer.shapes)),
        "weights": f"{weights} ({count:,} numbers)" if weights else None,
        "multiply-adds": f"{layer.multiply_adds:,}" if layer.multiply_adds else None,
    }
