"""A TensorFlow graph read as layers, operation by operation.

TensorFlow has operations, not layers. Those between the images and the output are taken in the order of the graph, each by
the rule for its type (describing.rules): what belongs together (a convolution and the bias added to it) is put
together, layout changes and what only passes values on are left out. What no rule takes stays as it is, under its
operation's name, with its shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from multiseg_tensorflow import dropout
from multiseg_tensorflow.tensors import SHAPES, VARIABLES, constant, consumers, live, reached
from multiseg_tensorflow.weights import Weight, split_name
from multiseg_tensorflow.weights import plain as plain_weight

RESHAPED = ("Reshape", "Squeeze", "ExpandDims", "Cast")
NHWC_AXES = {0: 0, 1: 2, 2: 3, 3: 1}  # an axis of NHWC -> its place in NCHW
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """What an operation makes: output ``index`` of ``node``.

    ``layout`` is of its axes: NHWC or NCHW of images, ROWS (a pixel each) of images that were reshaped so, None of others.
    ``image`` is (H, W, C) where a vector is a flattened image in that order; ``dense`` the layer whose features it still is.
    """

    node: Node
    index: int = 0
    layout: str | None = None
    image: tuple[int, int, int] | None = None
    dense: Node | None = None


@dataclass(eq=False)
class Node:
    """A layer that is being put together; ``weights`` are the variables of its parts."""

    op: Any
    type: str
    inputs: list[Value]
    parameters: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Weighted] = field(default_factory=dict)
    count: int = 1
    shapes: list[list[int]] = field(default_factory=list)
    tensor: Any = None  # what it makes
    name: str = ""

    def outputs(self) -> list[str]:
        """Names of the values it makes."""
        return [self.name] if self.count == 1 else [f"{self.name}.{index}" for index in range(self.count)]


@dataclass(frozen=True)
class Weighted:
    """A variable's operation, or None for a constant, and how its array becomes neutral."""

    variable: Any
    layout: Callable[..., Weight] = plain_weight
    arguments: tuple[Any, ...] = ()


# takes the walk and an operation; the values of its outputs, or None to leave the operation as it is
Rule = Callable[["Walk", Any], "list[Value] | None"]


class Walk:
    """Reads operations one after the other by ``rules``; what rules ask for is public."""

    def __init__(self, x: Any, output: Any, rules: Mapping[str, Rule]) -> None:
        self.rules = rules
        self.fed = reached([x.op], consumers)  # what depends on the images
        behind = reached([output.op], lambda op: (tensor.op for tensor in op.inputs))
        self.between = self.fed & behind
        self.source = Node(x.op, "Input", [], tensor=x, name="data")
        self.values: dict[Any, Value] = {x.ref(): Value(self.source, layout="NHWC")}
        self.nodes: list[Node] = []
        self.dropped = {found.result: found for found in dropout.find(x.graph)}

    def visit(self, op: Any) -> None:
        """Read one operation, whose inputs were read before."""
        if op.type in SHAPES:
            return
        if op.type == "Merge":
            taken = live(op)
            if taken is not None and taken.ref() in self.values:
                self.values[op.outputs[0].ref()] = self.values[taken.ref()]
                return
        elif any(
            tensor.op in self.fed and tensor.ref() not in self.values for tensor in op.inputs if self._takes(tensor)
        ):
            return  # on a branch that is not taken
        if not any(tensor.ref() in self.values for tensor in op.inputs):
            return
        if op.type == "Switch" and constant(op.inputs[1]) is not None:
            self.values[op.outputs[int(bool(constant(op.inputs[1])))].ref()] = self.values[op.inputs[0].ref()]
            return
        found = self.dropped.get(op)
        if found is not None and found.source.ref() in self.values:
            value = self.values[found.source.ref()]
            if 0 < found.ratio < 1:
                (value,) = self.add(op, "Dropout", [value], {"ratio": found.ratio})
            self.values[op.outputs[0].ref()] = value
            return
        rule = self.rules.get(op.type)
        made = rule(self, op) if rule is not None and self._known(op) else None
        for tensor, value in zip(op.outputs, made or self._other(op)):  # noqa: B905 - worker code runs on Python 3.9
            self.values[tensor.ref()] = value

    def _takes(self, tensor: Any) -> bool:
        return tensor.op in self.between and tensor.op.type not in SHAPES

    def _known(self, op: Any) -> bool:
        """Whether the shapes that rules go by are known."""
        tensors = [op.outputs[0], *(tensor for tensor in op.inputs if tensor.ref() in self.values)]
        return all(tensor.shape.rank is not None and None not in tensor.shape.as_list()[1:] for tensor in tensors)

    def value(self, tensor: Any) -> Value | None:
        """What an operation takes from the images' side, None where it is a weight or a constant."""
        return self.values.get(tensor.ref())

    def alone(self, tensor: Any) -> bool:
        """Whether a single operation of the network takes this tensor's values."""
        return sum(op in self.between and op.type not in SHAPES for op in set(tensor.consumers())) == 1

    def add(
        self, op: Any, type: str, inputs: list[Value], parameters: Params | None = None, **more: Any
    ) -> list[Value]:
        """A new layer, and its outputs as values of the layout of its first input."""
        node = Node(op, type, inputs, dict(parameters or {}), tensor=op.outputs[0], **more)
        self.nodes.append(node)
        layout = inputs[0].layout
        node.shapes = [neutral_shape(tensor, layout) for tensor in op.outputs[: node.count]]
        return [Value(node, index, layout) for index in range(node.count)]

    def unary(self, op: Any, type: str, parameters: Params | None = None) -> list[Value]:
        """A layer that works on each element by itself."""
        (first,) = [value for value in map(self.value, op.inputs) if value is not None]
        (made,) = self.add(op, type, [first], parameters)
        return [replace(made, image=first.image, dense=first.dense if self.alone(op.inputs[0]) else None)]

    def weight(self, tensor: Any) -> tuple[Any, Any] | None:
        """(variable's operation, None) or (None, constant array) behind a tensor; None for anything else."""
        op = tensor.op
        if op in self.fed:
            return None
        while op.type in ("Identity", "ReadVariableOp", "Switch", "Merge", "Enter", *RESHAPED):
            source = live(op) if op.type == "Merge" else op.inputs[0]
            if source is None:
                return None
            op = source.op
        if op.type in VARIABLES:
            return op, None
        value = constant(tensor)
        return None if value is None else (None, value)

    def _other(self, op: Any) -> list[Value]:
        """An operation beyond the vocabulary."""
        inputs = [value for value in map(self.value, op.inputs) if value is not None]
        weights: dict[str, Weighted] = {}
        for tensor in op.inputs:
            found = self.weight(tensor)
            if found and found[0] is not None:
                part = split_name(found[0].name)[1] or f"weight{len(weights) or ''}"
                weights[part] = Weighted(found[0])
        parameters = {}
        for tensor in op.inputs:
            value = None if tensor.op in self.fed else constant(tensor)
            if value is not None and value.size <= 16:
                parameters[f"input{list(op.inputs).index(tensor)}"] = value.tolist()
        made = self.add(op, f"tf.{op.type}", inputs, parameters, weights=weights, count=len(op.outputs))
        for index, tensor in enumerate(op.outputs):
            layout = None
            if tensor.shape.rank == 4:
                layout = "NCHW" if inputs[0].layout == "NCHW" else "NHWC"
            made[index] = replace(made[index], layout=layout)
            made[index].node.shapes[index] = neutral_shape(tensor, layout)
        return made


def neutral_shape(tensor: Any, layout: str | None) -> list[int]:
    """Without the batch, channels first; -1 for what is not known."""
    if tensor.shape.rank is None:
        return []
    shape = [-1 if size is None else size for size in tensor.shape.as_list()]
    if len(shape) == 4 and layout == "NHWC":
        return [shape[3], shape[1], shape[2]]
    return shape[1:]


def neutral_axis(axis: int, rank: int, layout: str | None) -> int:
    """The place of a tensor's axis among those of a neutral value, the batch counted."""
    axis %= rank
    return NHWC_AXES[axis] if layout == "NHWC" and rank == 4 else axis
