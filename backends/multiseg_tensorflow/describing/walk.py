"""Convert a TensorFlow graph to layers, operation by operation.

TensorFlow has operations, not layers. The operations between the images and the output are visited in the order of the
graph, each by the rule for its type (describing.rules). Rules combine operations that belong to one layer (a
convolution and the bias added to it), and omit layout changes and identities. An operation without a rule becomes a
layer of the type ``tf.OPERATION`` with its shapes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow

from multiseg_tensorflow import dropout
from multiseg_tensorflow.tensors import SHAPES, VARIABLES, constant, live_consumers, live_input, reachable
from multiseg_tensorflow.weights import Weight, split_name
from multiseg_tensorflow.weights import moved as moved_weight
from multiseg_tensorflow.weights import plain as plain_weight

PASSED = ("Identity", "ReadVariableOp", "Switch", "Enter")
RESHAPED = ("Reshape", "Squeeze", "ExpandDims", "Cast")
FEW = 64  # constants with at most this many elements are described by their values
SKIPPED = (
    "dtype",
    "out_type",
    "shape",
    "container",
    "shared_name",
    "seed",
    "seed2",
    "parallel_iterations",
    "use_cudnn_on_gpu",
)
tf = tensorflow.compat.v1
NHWC_AXES = {0: 0, 1: 2, 2: 3, 3: 1}  # an axis of NHWC -> its place in NCHW
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """An output of an operation: output ``index`` of ``node``.

    ``layout`` states the order of its axes: NHWC or NCHW for images, ROWS for images reshaped to one row per pixel, None
    for other values. ``image`` is (H, W, C) if a vector is a flattened image in that order. ``dense`` is the dense layer
    whose features the value holds, possibly after elementwise operations.
    """

    node: Node
    index: int = 0
    layout: str | None = None
    image: tuple[int, int, int] | None = None
    dense: Node | None = None


@dataclass(eq=False)
class Node:
    """A layer under construction; ``weights`` are its variables by part (weight, bias, ...), ``tensor`` is its first output."""

    op: Any
    type: str
    inputs: list[Value]
    parameters: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, VariableRef] = field(default_factory=dict)
    count: int = 1
    shapes: list[list[int]] = field(default_factory=list)
    tensor: Any = None
    tensors: list[Any] = field(default_factory=list)  # of several outputs
    name: str = ""

    def outputs(self) -> list[str]:
        """Return the names of its outputs."""
        return [self.name] if self.count == 1 else [f"{self.name}.{index}" for index in range(self.count)]


@dataclass(frozen=True)
class VariableRef:
    """A variable's operation (None for a constant), and the layout function, with arguments, for its neutral array."""

    variable: Any
    layout: Callable[..., Weight] = plain_weight
    arguments: tuple[Any, ...] = ()


# A rule takes the walk and an operation; it returns the values of the operation's outputs, or None if it does not apply.
Rule = Callable[["Walk", Any], "list[Value] | None"]


class Walk:
    """Visits the operations of a graph in order and applies ``rules``; the public methods are for the rules."""

    def __init__(self, inputs: Mapping[str, Any], outputs: Sequence[Any], rules: Mapping[str, Rule]) -> None:
        self.rules = rules
        self.input_dependent = reachable([tensor.op for tensor in inputs.values()], live_consumers)
        ancestors = reachable([output.op for output in outputs], lambda op: (tensor.op for tensor in op.inputs))
        self.path_ops = self.input_dependent & ancestors
        self.sources = [Node(tensor.op, "Input", [], tensor=tensor, name=name) for name, tensor in inputs.items()]
        self.values: dict[Any, Value] = {
            source.tensor.ref(): Value(source, layout="NHWC" if source.tensor.shape.rank == 4 else None)
            for source in self.sources
        }
        self.nodes: list[Node] = []
        self.dropouts = {entry.result: entry for entry in dropout.find(self.sources[0].op.graph)}

    def visit(self, op: Any) -> None:
        """Convert one operation; its inputs must have been visited before."""
        if op.type in SHAPES:
            return
        if op.type == "Merge":
            tensor = live_input(op)
            if tensor is not None and tensor.ref() in self.values:
                self.values[op.outputs[0].ref()] = self.values[tensor.ref()]
                return
        elif any(
            tensor.op in self.input_dependent and tensor.ref() not in self.values
            for tensor in op.inputs
            if self._is_on_path(tensor)
        ):
            return  # after operations that the walk cannot follow, see opaque
        if not any(tensor.ref() in self.values for tensor in op.inputs):
            return
        if op.type == "Switch" and constant(op.inputs[1]) is not None:
            self.values[op.outputs[int(bool(constant(op.inputs[1])))].ref()] = self.values[op.inputs[0].ref()]
            return
        dropped = self.dropouts.get(op)
        if dropped is not None and dropped.source.ref() in self.values:
            value = self.values[dropped.source.ref()]
            if 0 < dropped.ratio < 1:
                (value,) = self.add(op, "Dropout", [value], dropped.parameters)
            self.values[op.outputs[0].ref()] = value
            return
        rule = self.rules.get(op.type)
        outputs = rule(self, op) if rule is not None and self._has_known_shapes(op) else None
        for tensor, value in zip(op.outputs, outputs or self._unsupported(op)):  # noqa: B905 - worker code runs on Python 3.9
            self.values[tensor.ref()] = value

    def _is_on_path(self, tensor: Any) -> bool:
        return tensor.op in self.path_ops and tensor.op.type not in SHAPES

    def _has_known_shapes(self, op: Any) -> bool:
        """Return whether the shapes that the rules need are known, except the batch."""
        tensors = [op.outputs[0], *(tensor for tensor in op.inputs if tensor.ref() in self.values)]
        return all(tensor.shape.rank is not None and None not in tensor.shape.as_list()[1:] for tensor in tensors)

    def value(self, tensor: Any) -> Value | None:
        """Return the value of a tensor that depends on the images; None for a weight or a constant."""
        return self.values.get(tensor.ref())

    def has_single_consumer(self, tensor: Any) -> bool:
        """Return whether exactly one operation of the network uses the values of this tensor."""
        return sum(op in self.path_ops and op.type not in SHAPES for op in set(tensor.consumers())) == 1

    def add(
        self, op: Any, type: str, inputs: list[Value], parameters: Params | None = None, **more: Any
    ) -> list[Value]:
        """Add a layer and return its outputs, with the layout of its first input."""
        node = Node(op, type, inputs, dict(parameters or {}), tensor=op.outputs[0], **more)
        self.nodes.append(node)
        layout = inputs[0].layout
        node.tensors = list(op.outputs[: node.count])
        node.shapes = [neutral_shape(tensor, layout) for tensor in node.tensors]
        return [Value(node, index, layout) for index in range(node.count)]

    def unary(self, op: Any, type: str, parameters: Params | None = None) -> list[Value]:
        """Add an elementwise layer with one input and return its output."""
        (first,) = [value for value in map(self.value, op.inputs) if value is not None]
        (output,) = self.add(op, type, [first], parameters)
        return [
            replace(output, image=first.image, dense=first.dense if self.has_single_consumer(op.inputs[0]) else None)
        ]

    def weight(self, tensor: Any) -> tuple[Any, Any] | None:
        """Return (variable's operation, None) or (None, constant array) that a tensor reads; None for anything else."""
        op = tensor.op
        if op in self.input_dependent:
            return None
        while op.type in (*PASSED, "Merge", *RESHAPED):
            source = live_input(op) if op.type == "Merge" else op.inputs[0]
            if source is None:
                return None
            op = source.op
        if op.type in VARIABLES:
            return op, None
        value = constant(tensor)
        return None if value is None else (None, value)

    def kernel(self, tensor: Any, layout: Callable[..., Weight] = plain_weight) -> VariableRef | None:
        """Return the variable that a kernel reads, possibly reshaped and then transposed; None for anything else.

        ``layout`` is that of the kernel.
        """
        order = list(range(tensor.shape.rank or 0))
        while tensor.op.type in (*PASSED, "Transpose", "Merge"):
            perm = constant(tensor.op.inputs[1]) if tensor.op.type == "Transpose" else None
            if perm is not None:
                order = [int(perm[axis]) for axis in order]
            source = live_input(tensor.op) if tensor.op.type == "Merge" else tensor.op.inputs[0]
            if source is None or source.op in self.input_dependent:
                return None
            tensor = source
        weight, view = self.weight(tensor), tensor.shape.as_list() if tensor.shape.is_fully_defined() else None
        if weight is None:
            return None
        if tensor.op.type in VARIABLES and tensor.dtype == tf.resource:
            view = None
        return VariableRef(weight[0], moved_weight, (layout, view, order))

    def opaque(self, tensor: Any) -> Value:
        """Add one layer for all operations before an output that the walk cannot follow, e.g. after a loop; return its value.

        It has a digest of these operations, so that networks with others are described differently.
        """
        ops = sorted(reachable([tensor.op], lambda op: (source.op for source in op.inputs)), key=lambda op: op._id)
        places = {op: place for place, op in enumerate(ops)}
        content = [
            (
                op.type,
                attributes(op),
                [(places[source.op], source.value_index) for source in op.inputs],
                digest(constant(op.outputs[0])) if op.type == "Const" else str(op.node_def.attr["shape"]),
            )
            for op in ops
        ]
        parameters = {
            "operations": len(ops),
            "digest": hashlib.blake2b(repr(content).encode(), digest_size=8).hexdigest(),
        }
        first = self.values[self.sources[0].tensor.ref()]
        (value,) = self.add(tensor.op, f"tf.{tensor.op.type}", [first], parameters)
        return value

    def _unsupported(self, op: Any) -> list[Value]:
        """Add a layer of the type ``tf.OPERATION`` for an operation that no rule converts."""
        inputs = [value for value in map(self.value, op.inputs) if value is not None]
        weights: dict[str, VariableRef] = {}
        for tensor in op.inputs:
            weight = self.weight(tensor)
            if weight and weight[0] is not None:
                part = split_name(weight[0].name)[1] or f"weight{len(weights) or ''}"
                weights[part] = VariableRef(weight[0])
        parameters = attributes(op)
        for place, tensor in enumerate(op.inputs):
            value = None if tensor.op in self.input_dependent else constant(tensor)
            if value is not None:
                parameters[f"input{place}"] = value.tolist() if value.size <= FEW else digest(value)
        outputs = self.add(op, f"tf.{op.type}", inputs, parameters, weights=weights, count=len(op.outputs))
        for index, tensor in enumerate(op.outputs):
            layout = None
            if tensor.shape.rank == 4:
                layout = "NCHW" if inputs[0].layout == "NCHW" else "NHWC"
            outputs[index] = replace(outputs[index], layout=layout)
            outputs[index].node.shapes[index] = neutral_shape(tensor, layout)
        return outputs


def attributes(op: Any) -> dict[str, Any]:
    """Return the attributes of an operation that determine its result, as plain values; its types only where it converts."""
    values: dict[str, Any] = {}
    for name in sorted(op.node_def.attr):
        if name.startswith("_") or name in SKIPPED or (name.startswith("T") and op.type != "Cast"):
            continue
        value = op.get_attr(name)
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, list):
            value = [item if isinstance(item, (bool, int, float)) else str(item) for item in value]
        elif not isinstance(value, (bool, int, float)):
            value = getattr(value, "name", None)
        if value is not None:
            values[name] = value
    return values


def digest(value: Any) -> str:
    """Return the shape and a digest of a constant that has too many values to list."""
    content = hashlib.blake2b(np.ascontiguousarray(value).tobytes(), digest_size=8).hexdigest()
    return f"{'x'.join(map(str, value.shape))} values {content}"


def neutral_shape(tensor: Any, layout: str | None) -> list[int]:
    """Return a tensor's shape without the batch, channels first; -1 for an unknown size, [] for an unknown rank."""
    if tensor.shape.rank is None:
        return []
    shape = [-1 if size is None else size for size in tensor.shape.as_list()]
    if len(shape) == 4 and layout == "NHWC":
        return [shape[3], shape[1], shape[2]]
    return shape[1:]


def neutral_axis(axis: int, rank: int, layout: str | None) -> int:
    """Return the index of a tensor's axis in the neutral order (N, C, H, W for images)."""
    axis %= rank
    return NHWC_AXES[axis] if layout == "NHWC" and rank == 4 else axis
