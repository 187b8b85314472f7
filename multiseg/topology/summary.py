"""A topology as a table: one row for each layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from multiseg.topology import words
from multiseg.topology.description import Description
from multiseg.topology.layer import Layer

HEADINGS = ("layer", "type", "output", "parameters", "weights", "multiply-adds")


@dataclass(frozen=True)
class LayerRow:
    """One layer: ``output`` lists the shapes of its outputs, ``parameters`` is text, ``weights`` and ``multiply_adds`` count."""

    name: str
    type: str
    output: str
    parameters: str
    weights: int
    multiply_adds: int

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts of the row, in the order of HEADINGS."""
        counts = (f"{count:,}" if count else "" for count in (self.weights, self.multiply_adds))
        return self.name, self.type, self.output, self.parameters, *counts


def row(layer: Layer) -> LayerRow:
    """Return the row of one layer."""
    return LayerRow(
        name=layer.name,
        type=layer.type,
        output=", ".join(map(words.size, layer.shapes)),
        parameters=words.parameters(layer),
        weights=sum(map(math.prod, layer.weights.values())),
        multiply_adds=layer.multiply_adds,
    )


def headline(topology: Description) -> str:
    """Return a summary of the network in one line."""
    return (
        f"{topology.source}: {topology.kind}, {_ends(topology)}{len(topology.layers)} layers, "
        f"{topology.parameter_count:,} weights, {words.quantity(topology.multiply_adds)} multiply-adds per image, "
        f"loss: {topology.loss or 'none in the file'}"
    )


def _ends(topology: Description) -> str:
    """Return the sizes of the inputs, and if there are several outputs their names and sizes, each followed by a comma."""
    inputs, shapes = topology.inputs, topology.shapes
    if len(inputs) == 1:
        text = f"input {words.size(topology.input_shape)}, "
    else:
        text = f"inputs {words.listed([f'{name} {words.size(shape)}' for name, shape in inputs.items()])}, "
    if len(topology.outputs) == 1:
        return text
    outputs = [
        f"{title} {words.size(shapes[value])}" if title == value else f"{title} ({value}) {words.size(shapes[value])}"
        for title, value in zip(topology.titles, topology.outputs, strict=True)
    ]
    return f"{text}outputs {words.listed(outputs)}, "
