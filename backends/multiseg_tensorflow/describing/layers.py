"""Convert a TensorFlow graph to a list of named layers, in the vocabulary of multiseg.topology.vocabulary."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from multiseg.topology.names import unused
from multiseg_tensorflow import digits
from multiseg_tensorflow.describing.rules import RULES
from multiseg_tensorflow.describing.walk import Node, Value, Walk
from multiseg_tensorflow.dropout import Dropout
from multiseg_tensorflow.tensors import reachable
from multiseg_tensorflow.weights import Weight, split_name


@dataclass(frozen=True)
class Layers:
    """The layers of a graph. ``weights`` are keyed by the name of the variable's operation, ``tensors`` by the value's name."""

    nodes: list[Node]
    output: str
    weights: dict[str, Weight]
    tensors: dict[str, Any]
    source: Node
    output_shape: list[int | None]  # (H, W, C) or (C,), without the batch axis

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the layers in the format of multiseg.model_files."""
        return [
            {
                "name": node.name,
                "type": node.type,
                "inputs": [_name(value) for value in node.inputs],
                "outputs": node.outputs(),
                "parameters": node.parameters,
                "shapes": node.shapes,
                "weights": {
                    part: list(self.weights[ref.variable.name].shape)
                    for part, ref in node.weights.items()
                    if ref.variable is not None
                },
            }
            for node in self.nodes
        ]

    def shared(self) -> list[list[str]]:
        """Return the names of the layers that share a variable, one list for each shared variable."""
        users: dict[str, list[str]] = {}
        for node in self.nodes:
            for name in {ref.variable.name for ref in node.weights.values() if ref.variable is not None}:
                users.setdefault(name, []).append(node.name)
        return [names for names in users.values() if len(names) > 1]


def read(x: Any, output: Any, scopes: Collection[str] = ()) -> Layers:
    """Return the layers between the images ``x`` (N, H, W, C) and ``output``; only their batch size may be unknown.

    ``scopes`` are those of the layers of a Keras model, by which its layers without weights are named.
    """
    walk = Walk(x, output, RULES)
    for op in x.graph.get_operations():
        if op in walk.path_ops and op is not x.op:
            walk.visit(op)
    last = walk.values.get(output.ref())
    if last is None:  # the walk cannot follow the operations before the output, e.g. a loop
        (last,) = walk.add(output.op, f"tf.{output.op.type}", [walk.values[x.ref()]])
    needed = reachable([last.node], lambda node: (value.node for value in node.inputs))
    nodes = [node for node in walk.nodes if node in needed]
    weights = _assign_names(nodes, scopes)
    tensors = {
        name: tensor
        for node in nodes
        for name, tensor in zip(node.outputs(), [node.tensor] if node.count == 1 else node.tensors)  # noqa: B905
    }
    return Layers(nodes, _name(last), weights, tensors, walk.source, output.shape.as_list()[1:])


def _name(value: Value) -> str:
    """Return the name of a layer's output."""
    return value.node.outputs()[value.index]


def _assign_names(nodes: list[Node], scopes: Collection[str]) -> dict[str, Weight]:
    """Set the name of every layer, and return the weights by the name of the variable's operation."""
    taken = {"data"}
    weights: dict[str, Weight] = {}
    for node in nodes:
        variables = [ref.variable for ref in node.weights.values() if ref.variable is not None]
        if variables:
            name = split_name(variables[0].name)[0]
            scope = name.rpartition(".")[0]
            is_layer = name not in scopes and scope in scopes and scope not in taken  # its weight has a name of its own
            node.name = _unique(scope if is_layer else name, taken)
        for part, ref in node.weights.items():
            if ref.variable is not None and ref.variable.name not in weights:
                shape = _variable_shape(ref.variable)
                weights[ref.variable.name] = ref.layout(f"{node.name}.{part}", shape, *ref.arguments)
    for node in nodes:
        if not node.name:
            name = _path(node.op.name)
            scope, _, last = name.rpartition(".")
            while scope and scopes and scope not in scopes:
                scope = scope.rpartition(".")[0]
            is_default = scope and scope not in taken and (scopes or re.fullmatch(rf"{node.op.type}(_\d+)?", last))
            node.name = _unique(scope if is_default else name, taken)
    return weights


def _path(name: str) -> str:
    """Return an operation's name without the scope of DIGITS, with dots for slashes."""
    return re.sub(f"^({digits.GraphKeys.MODEL}/)+", "", name).replace("/", ".")


def _unique(name: str, taken: set[str]) -> str:
    """Return ``name``, with a number appended if it is in ``taken``, and add it to ``taken``."""
    unique = unused(name, taken, first=1)  # as TensorFlow numbers its operations
    taken.add(unique)
    return unique


def _variable_shape(op: Any) -> list[int]:
    """Return the shape of the variable that an operation creates."""
    return [int(dim.size) for dim in op.node_def.attr["shape"].shape.dim]


def mark_training_statistics(layers: Layers, training: Layers) -> None:
    """Mark the batch normalisations that use stored statistics in training too; ``training`` are the layers of that graph."""

    def keys(node: Node) -> set[str]:
        return {ref.variable.name for ref in node.weights.values() if ref.variable is not None} | {node.op.name}

    norms = [node for node in training.nodes if node.type == "BatchNormalization"]
    for node in layers.nodes:
        if node.type == "BatchNormalization":
            partner = next((norm for norm in norms if keys(norm) & keys(node)), None)
            if partner is not None and "prediction_statistics" not in partner.parameters:
                node.parameters["training_statistics"] = "stored"


def with_dropouts(layers: Layers, dropouts: Iterable[Dropout]) -> Layers:
    """Return ``layers`` with a Dropout layer after each layer whose tensor has dropout in the training graph."""
    by_source = {dropout.source.name: dropout for dropout in dropouts if 0 < dropout.ratio < 1}
    nodes: list[Node] = []
    replacements: dict[Node, Node] = {}
    taken = {node.name for node in layers.nodes}
    for node in [layers.source, *layers.nodes]:
        node.inputs = [
            replace(value, node=replacements[value.node]) if value.node in replacements else value
            for value in node.inputs
        ]
        if node is not layers.source:
            nodes.append(node)
        dropout, last = by_source.get(node.tensor.name), node
        while dropout is not None and node.count == 1:
            name = _unique(_path(dropout.name), taken)
            layer = Node(node.op, "Dropout", [Value(last)], dropout.parameters, tensor=node.tensor, name=name)
            layer.shapes = node.shapes
            nodes.append(layer)
            replacements[node] = last = layer
            dropout = by_source.get(dropout.result.outputs[0].name)  # dropout of dropout
    output = next((layer.name for node, layer in replacements.items() if node.name == layers.output), layers.output)
    return replace(layers, nodes=nodes, output=output)
