"""A TensorFlow graph as a list of named layers, in the vocabulary of multiseg.topology.vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from multiseg_tensorflow import digits
from multiseg_tensorflow.describing.rules import RULES
from multiseg_tensorflow.describing.walk import Node, Value, Walk
from multiseg_tensorflow.dropout import Dropout
from multiseg_tensorflow.tensors import reached
from multiseg_tensorflow.weights import Weight, split_name


@dataclass(frozen=True)
class Layers:
    """What a graph was read as; ``weights`` are by the variables' operations' names, ``tensors`` by layers' names."""

    nodes: list[Node]
    output: str
    weights: dict[str, Weight]
    tensors: dict[str, Any]
    source: Node
    output_shape: list[int | None]  # without the batch: H, W, C, or C

    def described(self) -> list[dict[str, Any]]:
        """The layers, as multiseg.model_files has them."""
        return [
            {
                "name": node.name,
                "type": node.type,
                "inputs": [_name(value) for value in node.inputs],
                "outputs": node.outputs(),
                "parameters": node.parameters,
                "shapes": node.shapes,
                "weights": {
                    part: list(self.weights[each.variable.name].shape)
                    for part, each in node.weights.items()
                    if each.variable is not None
                },
            }
            for node in self.nodes
        ]

    def shared(self) -> list[list[str]]:
        """Names of the layers that have a variable in common, by variable."""
        users: dict[str, list[str]] = {}
        for node in self.nodes:
            for name in {each.variable.name for each in node.weights.values() if each.variable is not None}:
                users.setdefault(name, []).append(node.name)
        return [names for names in users.values() if len(names) > 1]


def read(x: Any, output: Any) -> Layers:
    """The layers between the images ``x`` (N, H, W, C) and ``output``, whose shapes must be known but for the batch."""
    walk = Walk(x, output, RULES)
    for op in x.graph.get_operations():
        if op in walk.between and op is not x.op:
            walk.visit(op)
    last = walk.values.get(output.ref())
    if last is None:  # what leads there cannot be followed, e.g. a loop
        (last,) = walk.add(output.op, f"tf.{output.op.type}", [walk.values[x.ref()]])
    needed = reached([last.node], lambda node: (value.node for value in node.inputs))
    nodes = [node for node in walk.nodes if node in needed]
    weights = _named(nodes)
    return Layers(
        nodes, _name(last), weights, {node.name: node.tensor for node in nodes}, walk.source, output.shape.as_list()[1:]
    )


def _name(value: Value) -> str:
    return value.node.outputs()[value.index]


def _named(nodes: list[Node]) -> dict[str, Weight]:
    """Give every layer its name, and its variables theirs."""
    taken = {"data"}
    weights: dict[str, Weight] = {}
    for node in nodes:
        held = [each.variable for each in node.weights.values() if each.variable is not None]
        if held:
            node.name = _unique(split_name(held[0].name)[0], taken)
        for part, each in node.weights.items():
            if each.variable is not None and each.variable.name not in weights:
                shape = _variable_shape(each.variable)
                weights[each.variable.name] = each.layout(f"{node.name}.{part}", shape, *each.arguments)
    for node in nodes:
        if not node.name:
            name = _path(node.op.name)
            scope, _, last = name.rpartition(".")
            plain = scope and scope not in taken and re.fullmatch(rf"{node.op.type}(_\d+)?", last)
            node.name = _unique(scope if plain else name, taken)
    return weights


def _path(name: str) -> str:
    """An operation's name without DIGITS' scope."""
    return re.sub(f"^({digits.GraphKeys.MODEL}/)+", "", name).replace("/", ".")


def _unique(name: str, taken: set[str]) -> str:
    found, number = name, 0
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found


def _variable_shape(op: Any) -> list[int]:
    return [int(dim.size) for dim in op.node_def.attr["shape"].shape.dim]


def with_dropouts(layers: Layers, dropouts: Iterable[Dropout]) -> Layers:
    """The layers with a Dropout behind each whose tensor has one in the graph that trains."""
    found = {each.source.name: each for each in dropouts if 0 < each.ratio < 1}
    nodes: list[Node] = []
    instead: dict[Node, Node] = {}
    taken = {node.name for node in layers.nodes}
    for node in [layers.source, *layers.nodes]:
        node.inputs = [
            replace(value, node=instead[value.node]) if value.node in instead else value for value in node.inputs
        ]
        if node is not layers.source:
            nodes.append(node)
        dropped = found.get(node.tensor.name)
        if dropped is not None and node.count == 1:
            name = _unique(_path(dropped.name), taken)
            drop = Node(node.op, "Dropout", [Value(node)], {"ratio": dropped.ratio}, tensor=node.tensor, name=name)
            drop.shapes = node.shapes
            nodes.append(drop)
            instead[node] = drop
    last = next((drop.name for node, drop in instead.items() if node.name == layers.output), layers.output)
    return replace(layers, nodes=nodes, output=last)
