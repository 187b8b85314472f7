"""Layers as boxes of a drawing: one box for a layer and the activations and the like that follow it alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from multiseg.topology.description import Description
from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary import types

# Types that share the box of the layer before them.
COMPACT = types(lambda row: row.compact)


@dataclass(eq=False)
class Block:
    """``layers`` of one box (none for the network's input), and what it hands on: ``shapes``, one for each output."""

    layers: list[Layer]
    shapes: tuple[Shape, ...]
    reads: list[Block] = field(default_factory=list)


def blocks(topology: Description) -> list[Block]:
    """The boxes, each after those it reads; the first is the network's input."""
    uses = Counter(name for layer in topology.layers for name in layer.inputs)
    uses.update(topology.outputs)
    found = [Block([], (topology.input_shape,))]
    makers = {topology.input: found[0]}
    for layer in topology.layers:
        before = makers[layer.inputs[0]]
        alone = len(layer.inputs) == 1 and uses[layer.inputs[0]] == 1 and len(before.shapes) == 1
        if layer.type in COMPACT and alone and before.layers:
            before.layers.append(layer)
            block = before
        else:
            block = Block([layer], layer.shapes, list(dict.fromkeys(makers[name] for name in layer.inputs)))
            found.append(block)
        makers.update(dict.fromkeys(layer.outputs, block))
    return found
