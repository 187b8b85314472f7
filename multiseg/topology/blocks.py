"""Group layers into the boxes of a drawing: a layer shares its box with the activations and similar layers after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field

from multiseg.topology.description import Description
from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary import types

# Types that share the box of the layer before them.
COMPACT = types(lambda row: row.compact)


@dataclass(eq=False)
class Block:
    """One box: its ``layers``, none for an ``input``, the ``shapes`` of its outputs, and the blocks that it ``reads``."""

    layers: list[Layer]
    shapes: tuple[Shape, ...]
    reads: list[Block] = field(default_factory=list)
    input: str = ""


def blocks(topology: Description, apart: Container[str] = ()) -> list[Block]:
    """Return the boxes in topological order; the first are the network's inputs.

    Layers whose first output is in ``apart`` share their box with no other layer.
    """
    uses = Counter(name for layer in topology.layers for name in layer.inputs)
    uses.update(topology.outputs)
    boxes = [Block([], (shape,), input=name) for name, shape in topology.inputs.items()]
    producers = {box.input: box for box in boxes}
    for layer in topology.layers:
        previous = producers[layer.inputs[0]]
        is_only_reader = len(layer.inputs) == 1 and uses[layer.inputs[0]] == 1 and len(previous.shapes) == 1
        separate = layer.outputs[0] in apart or (previous.layers and previous.layers[0].outputs[0] in apart)
        if layer.type in COMPACT and is_only_reader and previous.layers and not separate:
            previous.layers.append(layer)
            block = previous
        else:
            block = Block([layer], layer.shapes, list(dict.fromkeys(producers[name] for name in layer.inputs)))
            boxes.append(block)
        producers.update(dict.fromkeys(layer.outputs, block))
    return boxes
