"""The canonical form of a network: equal for files that express the same network in different ways.

It omits everything without an effect at the given sizes (names, the order of branches, Identity, layers that reach no output),
and expresses equivalent layers in one way:

- padding is what the windows actually read, so SAME, rounding up and explicit numbers become equal; for average poolings, the
  divisor of each window is compared too;
- a pooling over the whole image is a global one; so is ReduceMean over height and width;
- Flatten, Squeeze and Reshape become a Reshape to their output shape, Crop and Split become Slices, Add and Sub become Sums,
  Neg becomes a Mul by -1, Sqrt a Pow;
- BatchNormalization without weights and the Scale after it are merged; so are padding and the convolution or pooling after it,
  a deconvolution and the Slice that cuts off its borders, and a Concat or Sum of Concats or Sums.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from multiseg.topology.description import Description
from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary import (
    PARAMETERS,
    VOCABULARY,
    axis_index,
    canonical_form,
    comparable,
    sum_factors,
    types,
    window_pads,
)

COMMUTATIVE = types(lambda row: row.commutative)
# Parameters that depend on the size of the images as well as on the file.
SIZED = frozenset(name for name, parameter in PARAMETERS.items() if parameter.sized)


class Wire(NamedTuple):
    """An input of a node: an ``output`` of another node (None: the network's input); ``factor`` is its coefficient in a Sum."""

    node: Node | None
    output: int
    shape: Shape
    factor: float = 1.0


@dataclass(eq=False)
class Node:
    """A layer in canonical form. ``layer`` is the original layer, for messages; ``shape`` is that of the first output.

    ``weights``: neutral names of its parameters by part; ``value``: the name of its output in the file. A node merged from
    several layers has the parameters of all of them and the output of the last.
    """

    layer: Layer
    type: str
    parameters: dict[str, Any]
    inputs: list[Wire]
    shape: Shape
    weights: dict[str, str] = field(default_factory=dict)
    value: str = ""
    ahead: str = ""  # digest of everything before it
    behind: str = ""  # digest of everything after it, without sizes

    def __post_init__(self) -> None:
        self.weights = self.weights or {part: f"{self.layer.name}.{part}" for part in self.layer.weights}
        self.value = self.value or self.layer.outputs[0]

    def signature(self, sized: bool = True) -> tuple[Any, ...]:
        """Return type, parameters and, for types beyond the vocabulary, weights; the weights of other types follow from these.

        ``sized``: include parameters that depend on the size of the images.
        """
        weights = () if self.layer.type in VOCABULARY else tuple(sorted(self.layer.weights.items()))
        parameters = sorted((key, value) for key, value in self.parameters.items() if sized or key not in SIZED)
        return self.type, weights, tuple(parameters)

    def wiring(self, name: Callable[[Wire], Any]) -> tuple[Any, ...]:
        """Return the inputs by name, sorted if their order does not matter."""
        wires = [(name(wire), wire.output, wire.factor) for wire in self.inputs]
        return tuple(sorted(wires) if self.type in COMMUTATIVE else wires)


@dataclass(frozen=True, eq=False)
class Canonical:
    """``nodes`` in a topological order that depends on the structure alone; ``unused`` names the layers that reach no output.

    ``key`` is equal for equal networks.
    """

    nodes: list[Node]
    outputs: list[Wire]
    key: tuple[Any, ...]
    unused: set[str]


def canonical(topology: Description, apart: Container[str] = ()) -> Canonical:
    """Return the canonical form of a topology. Layers named in ``apart`` are not merged with others."""
    shapes = topology.shapes
    values = {name: Wire(None, place, shape) for place, (name, shape) in enumerate(topology.inputs.items())}
    for layer in topology.layers:
        sources = _translate(layer, [values[name] for name in layer.inputs])
        for name, (node, output) in zip(layer.outputs, sources, strict=True):
            values[name] = Wire(node, output, shapes[name])
    outputs = [values[name] for name in topology.outputs]
    nodes = _reached(outputs)
    used = {node.layer.name for node in nodes}
    unused = {wire.node.layer.name for wire in values.values() if wire.node is not None} - used
    outputs = _fold(nodes, outputs, apart)
    _digest(_reached(outputs), outputs)
    nodes = _reached(outputs, _in_order)
    position = {node: number for number, node in enumerate(nodes)}

    def number(wire: Wire) -> int:
        return -1 if wire.node is None else position[wire.node]

    layers = tuple((node.signature(), node.wiring(number)) for node in nodes)
    output_numbers = tuple((number(wire), wire.output) for wire in outputs)
    return Canonical(nodes, outputs, (tuple(topology.inputs.values()), layers, output_numbers), unused)


def _translate(layer: Layer, inputs: list[Wire]) -> list[tuple[Node | None, int]]:
    """Return node and output index for each output of a layer: of a new node, or of the layer's input for an Identity."""
    input_shapes = [wire.shape for wire in inputs]
    if layer.type not in VOCABULARY:
        all_parameters = {key: comparable(value) for key, value in layer.parameters.items()} | {"shapes": layer.shapes}
        node = Node(layer, layer.type, all_parameters, inputs, layer.shapes[0])
        return [(node, index) for index in range(len(layer.outputs))]
    if layer.type == "Split":
        return _split(layer, inputs[0])
    canonical_type, parameters = canonical_form(layer, input_shapes)
    shape = layer.shapes[0]
    if canonical_type == "Identity":
        return [(inputs[0].node, inputs[0].output)]
    if canonical_type == "Slice":
        inputs = inputs[:1]  # a Crop's second input only provides the size, which is in the bounds
    if canonical_type == "Sum":
        pairs = zip(inputs, sum_factors(layer, len(inputs)), strict=True)
        inputs = [wire._replace(factor=comparable(factor)) for wire, factor in pairs]
    if canonical_type == "GlobalAveragePool" and len(shape) == 1:  # a ReduceMean that drops the axes
        inputs = [Wire(Node(layer, canonical_type, {}, inputs, (*shape, 1, 1)), 0, (*shape, 1, 1))]
        canonical_type, parameters = "Reshape", {"shape": shape}
    node = Node(layer, canonical_type, parameters, inputs, shape)
    return [(node, index) for index in range(len(layer.outputs))]


def _split(layer: Layer, wire: Wire) -> list[tuple[Node | None, int]]:
    axis, start = axis_index(layer.parameters["axis"], wire.shape), 0
    parts: list[tuple[Node | None, int]] = []
    for size, shape, value in zip(layer.parameters["split"], layer.shapes, layer.outputs, strict=True):
        bounds = tuple((start, start + size) if i == axis else (0, n) for i, n in enumerate(wire.shape))
        parts.append((Node(layer, "Slice", {"bounds": bounds}, [wire], shape, value=value), 0))
        start += size
    return parts


def _reached(outputs: Iterable[Wire], inputs: Callable[[Node], list[Wire]] = lambda node: node.inputs) -> list[Node]:
    """Return the nodes that the outputs depend on, in topological order; the inputs of a node in the order of ``inputs``."""
    order: dict[Node, None] = {}
    for output in outputs:
        stack = [(output.node, False)]
        while stack:
            node, ready = stack.pop()
            if node is None or node in order:
                continue
            if ready:
                order[node] = None
            else:
                stack.append((node, True))
                stack += [(wire.node, False) for wire in reversed(inputs(node))]
    return list(order)


def _fold(nodes: list[Node], outputs: list[Wire], apart: Container[str]) -> list[Wire]:
    """Merge nodes that form one operation. Returns the outputs, which may belong to other nodes than before."""
    uses = Counter(wire.node for node in nodes for wire in node.inputs)
    uses.update(wire.node for wire in outputs)
    replacements: dict[Node | None, Wire] = {}

    def current(wire: Wire) -> Wire:
        other = replacements.get(wire.node)
        return wire if other is None else other._replace(factor=wire.factor)

    for node in nodes:
        node.inputs = [current(wire) for wire in node.inputs]
        if node.type in ("Concat", "Sum"):
            _flatten(node, uses, apart)
            continue
        before = node.inputs[0].node
        if (
            before is None
            or uses[before] != 1
            or len(node.inputs) != 1
            or node.inputs[0].output
            or node.layer.name in apart
        ):
            continue
        if (before.type, node.type) == ("Pad", "Conv"):
            _pad_inside(before, node)
        elif before.type == "Pad" and node.layer.type in ("MaxPool", "AveragePool"):
            _pad_inside_pool(before, node)
        elif _join(before, node):
            before.shape, before.value = node.shape, node.value
            before.weights |= node.weights
            uses[before] = uses[node]
            replacements[node] = Wire(before, 0, node.shape)
            if (
                before.type == "Reshape" and before.shape == before.inputs[0].shape
            ):  # the two reshapes cancel each other
                replacements[node] = before.inputs[0]
                uses[before.inputs[0].node] += uses[node] - 1
    for node in nodes:
        if "pads" in node.parameters:
            _complete_pads(node)
    return [current(wire) for wire in outputs]


def _flatten(node: Node, uses: Mapping[Node | None, int], apart: Container[str]) -> None:
    """Replace each input that is a Concat or Sum of the same kind, read by this node alone, by the inputs of that node."""
    flat: list[Wire] = []
    for wire in node.inputs:
        inner = wire.node
        if inner is None or uses[inner] != 1 or inner.layer.name in apart:
            flat.append(wire)
        elif (inner.type, inner.parameters) == (node.type, node.parameters):
            flat += [
                inner_wire._replace(factor=comparable(inner_wire.factor * wire.factor)) for inner_wire in inner.inputs
            ]
        else:
            flat.append(wire)
    node.inputs = flat


def _join(before: Node, node: Node) -> bool:
    """Merge ``node`` into ``before`` if possible, and return whether it was."""
    one, other = before.parameters, node.parameters
    pair = (before.type, node.type)
    if pair == ("BatchNormalization", "Scale") and other["bias_term"] and not one["affine"]:
        one["affine"] = True
    elif pair == ("ConvTranspose", "Slice") and other["bounds"][0] == (0, before.shape[0]):
        one["pads"] = tuple(pad + start for pad, (start, _) in zip(one["pads"], other["bounds"][1:], strict=True))
    elif pair == ("Slice", "Slice"):
        both = zip(one["bounds"], other["bounds"], strict=True)
        one["bounds"] = tuple((first + start, first + end) for (first, _), (start, end) in both)
    elif pair == ("Reshape", "Reshape"):
        one["shape"] = other["shape"]
    else:
        return False
    return True


def _pad_inside(pad: Node, node: Node) -> None:
    """Move padding with zeros into the convolution after it."""
    borders = pad.parameters["borders"]
    if pad.parameters["value"] == 0 and min(borders) >= 0:
        node.parameters["pads"] = tuple(a + b for a, b in zip(node.parameters["pads"], borders[:2], strict=True))
        node.inputs = pad.inputs


def _pad_inside_pool(pad: Node, node: Node) -> None:
    """Move padding into the pooling after it: with -infinity into a maximum, with counted zeros into an average."""
    layer, borders = node.layer, pad.parameters["borders"]
    average = layer.type == "AveragePool"
    own = window_pads(layer.parameters, pad.shape[1:])
    if pad.parameters["value"] != (0 if average else -math.inf) or min(borders) < 0 or (average and any(own)):
        return
    parameters = {key: value for key, value in layer.parameters.items() if key != "auto_pad"}
    parameters |= {"pads": [a + b for a, b in zip(own, borders, strict=True)], "count_include_pad": True}
    node.inputs = pad.inputs
    node.type, node.parameters = canonical_form(replace(layer, parameters=parameters), [pad.inputs[0].shape])


def _complete_pads(node: Node) -> None:
    """Add the padding at the bottom and right that windows read; negative if they leave out pixels."""
    parameters = node.parameters
    windows, image = node.shape[1:], node.inputs[0].shape[1:]
    if node.type == "ConvTranspose":
        windows, image = image, windows
    spans = [(k - 1) * d + 1 for k, d in zip(parameters["kernel_shape"], parameters["dilations"], strict=True)]
    ends = [(m - 1) * s + span for m, s, span in zip(windows, parameters["strides"], spans, strict=True)]
    parameters["pads"] += tuple(end - n - pad for end, n, pad in zip(ends, image, parameters["pads"], strict=True))


def _digest(nodes: list[Node], outputs: list[Wire]) -> None:
    """Set ``ahead`` and ``behind`` of each node."""
    readers: dict[Node | None, list[tuple[Any, ...]]] = {node: [] for node in (None, *nodes)}
    for node in nodes:
        node.ahead = _hash(node.signature(), node.wiring(_ahead))
    for place, wire in enumerate(outputs):
        readers[wire.node].append(("output", place, wire.output, 1.0))
    for node in reversed(nodes):
        node.behind = _hash(node.signature(sized=False), sorted(readers[node]))
        for place, wire in enumerate(node.inputs):
            place = 0 if node.type in COMMUTATIVE else place
            readers[wire.node].append((node.behind, place, wire.output, wire.factor))


def _ahead(wire: Wire) -> str:
    return "" if wire.node is None else wire.node.ahead


def _in_order(node: Node) -> list[Wire]:
    """Return a node's inputs; of commutative nodes sorted by the digests of what is before and after each input."""
    if node.type not in COMMUTATIVE:
        return node.inputs
    return sorted(node.inputs, key=lambda w: (_ahead(w), w.output, w.factor, w.node.behind if w.node else ""))


def _hash(*parts: Any) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
