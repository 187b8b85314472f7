"""Convert a TensorFlow graph to a list of named layers, in the vocabulary of multiseg.topology.vocabulary."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from multiseg.topology.names import unused
from multiseg_tensorflow import digits
from multiseg_tensorflow.describing.rules import RULES
from multiseg_tensorflow.describing.walk import Node, Value, Walk, neutral_shape
from multiseg_tensorflow.tensors import reachable
from multiseg_tensorflow.weights import Weight, split_name


@dataclass(frozen=True)
class Layers:
    """The layers of a graph. ``weights`` are keyed by the name of the variable's operation, ``tensors`` by the value's name.

    ``outputs`` are the names of values, ``titles`` the file's own names of these; ``sources`` are the inputs.
    """

    nodes: list[Node]
    outputs: list[str]
    titles: list[str]
    weights: dict[str, Weight]
    tensors: dict[str, Any]
    sources: list[Node]
    is_cut: bool = False

    @property
    def output(self) -> str:
        """The name of the only output."""
        return self.outputs[0]

    @property
    def output_shape(self) -> list[int | None]:
        """The shape of the only output, (H, W, C) or (C,), without the batch axis."""
        shape: list[int | None] = self.tensors[self.output].shape.as_list()[1:]
        return shape

    def cut(self, names: Sequence[str]) -> Layers:
        """Return the layers with only these outputs, or unchanged without names, or if one of them is unknown."""
        titled = dict(zip(self.titles, self.outputs))  # noqa: B905
        values = [titled.get(name, name) for name in names]
        if not names or not all(value in self.tensors for value in values):
            return self
        return replace(self, outputs=values, titles=list(names), is_cut=True)

    def more_inputs(self) -> dict[str, list[int]]:
        """Return the shapes of the inputs after the first by name."""
        return {node.name: neutral_shape(node.tensor, "NHWC") for node in self.sources[1:]}

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

    def sharing(self) -> dict[str, list[list[str]]]:
        """Return the names of the layers that share a variable, one list for each variable, and the names of its neutral array.

        A variable that these layers read in different layouts has no common neutral array.
        """
        users: dict[str, list[str]] = {}
        names: dict[str, list[str]] = {}
        layouts: dict[str, set[Weight]] = {}
        for node in self.nodes:
            for part, ref in node.weights.items():
                if ref.variable is not None:
                    variable = ref.variable.name
                    users.setdefault(variable, []).append(node.name)
                    names.setdefault(variable, []).append(f"{node.name}.{part}")
                    layout = ref.layout("", _variable_shape(ref.variable), *ref.arguments)
                    layouts.setdefault(variable, set()).add(layout)
        several = [variable for variable, layers in users.items() if len(set(layers)) > 1]
        return {
            "shared": [list(dict.fromkeys(users[variable])) for variable in several],
            "tied": [names[variable] for variable in several if len(layouts[variable]) == 1],
        }


def read(inputs: Sequence[Any], outputs: Sequence[tuple[str, Any]], scopes: Collection[str] = ()) -> Layers:
    """Return the layers between the images (N, H, W, C) of each input and the outputs; only their batch size may be unknown.

    ``outputs`` are tensors with their titles, empty for those without one. ``scopes`` are those of the layers of a Keras model,
    by which its layers without weights are named.
    """
    names: list[str] = []
    for tensor in inputs:
        names.append(unused(path_of(tensor.op.name), names) if names else "data")
    walk = Walk(dict(zip(names, inputs)), [tensor for _, tensor in outputs], RULES)  # noqa: B905
    ends = [node.op for node in walk.sources]
    for op in inputs[0].graph.get_operations():
        if op in walk.path_ops and op not in ends:
            walk.visit(op)
    last: list[Value] = []
    for _, output in outputs:
        value = walk.values.get(output.ref())
        last.append(walk.opaque(output) if value is None else value)
    needed = reachable([value.node for value in last], lambda node: (value.node for value in node.inputs))
    nodes = [node for node in walk.nodes if node in needed]
    weights = _assign_names(nodes, names, scopes)
    tensors = {
        name: tensor
        for node in nodes
        for name, tensor in zip(node.outputs(), [node.tensor] if node.count == 1 else node.tensors)  # noqa: B905
    }
    titled: dict[str, str] = {}
    for value, (title, tensor) in zip(last, outputs):  # noqa: B905
        titled.setdefault(_name(value), title or _name(value))
        tensors.setdefault(_name(value), tensor)  # of a network that passes its input on
    return Layers(nodes, list(titled), list(titled.values()), weights, tensors, walk.sources)


def _name(value: Value) -> str:
    """Return the name of a layer's output."""
    return value.node.outputs()[value.index]


def _assign_names(nodes: list[Node], inputs: Sequence[str], scopes: Collection[str]) -> dict[str, Weight]:
    """Set the name of every layer, and return the weights by the name of the variable's operation."""
    taken = set(inputs)
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
            name = path_of(node.op.name)
            scope, _, last = name.rpartition(".")
            while scope and scopes and scope not in scopes:
                scope = scope.rpartition(".")[0]
            is_default = scope and scope not in taken and (scopes or re.fullmatch(rf"{node.op.type}(_\d+)?", last))
            node.name = _unique(scope if is_default else name, taken)
    return weights


def path_of(name: str) -> str:
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
