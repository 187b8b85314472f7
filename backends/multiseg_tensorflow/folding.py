"""Fold constant arithmetic on the weights of a plain graph: the result becomes the weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow

from multiseg.topology.names import unused
from multiseg_tensorflow.definitions import IDENTITIES, WEIGHTS, is_bias, is_per_channel, origin
from multiseg_tensorflow.tensors import VARIABLES, Constants, constant, consumers, reachable

tf = tensorflow.compat.v1

OFFSETS = ("Add", "AddV2", "Sub")
ARITHMETIC = (*OFFSETS, "Mul")
# the last part of a folded weight's name, by the index of the operation's input
PARTS = {"BiasAdd": {1: "biases"}, "FusedBatchNorm": {1: "gamma", 2: "beta", 3: "moving_mean", 4: "moving_variance"}}


def fold(graph: Any, outputs: Sequence[str], values: Mapping[str, Any], sources: Sequence[Any]) -> tuple[Any, set[str]]:
    """Return the graph with constants in place of the expressions that its weights are computed from.

    ``outputs`` are the names of its last operations, ``values`` the values of its variables, ``sources`` the images. A kernel
    that is only split into groups, and the arithmetic of batch normalisation, remain: they are part of a layer. An offset per
    channel that is no layer's bias becomes a layer of its own, Scale. Also returns the names of the variables that are no longer
    used.
    """
    constants, dependent = Constants(values), reachable([source.op for source in sources], consumers)
    changes = _Changes(graph)
    for op in graph.get_operations():
        if op not in dependent:
            continue
        for slot in _slots(op, dependent):
            tensor = op.inputs[slot]
            array = constants.value(tensor) if _is_expression(op, tensor) else None
            if array is not None and tensor.dtype.is_floating and array.ndim and array.size:
                changes.fold(op, slot, array)
            is_constant = array is not None or origin(tensor).type == "Const"
            if is_constant and _is_offset(op, slot):
                changes.add_offset(op, slot, constants.value(tensor))
    if not changes.inputs:
        return graph, set()
    definition = tf.graph_util.extract_sub_graph(
        changes.definition(), [*outputs, *(source.op.name for source in sources)]
    )
    before = {op.name for op in graph.get_operations() if op.type in VARIABLES}
    folded = tf.Graph()
    with folded.as_default():
        tf.import_graph_def(definition, name="")
    return folded, before - {node.name for node in definition.node}


class _Changes:
    """New constants and inputs of the operations of a graph."""

    def __init__(self, graph: Any) -> None:
        self.inputs: dict[tuple[str, int], str] = {}
        self._graph = graph
        self._taken = {op.name for op in graph.get_operations()}
        self._folded: dict[str, str] = {}  # tensor -> constant
        self._arrays: dict[str, Any] = {}
        self._products: dict[str, tuple[str, str]] = {}  # new product -> its operands
        self._sums: set[str] = set()  # differences that become sums

    def fold(self, op: Any, slot: int, array: Any) -> None:
        """Replace an input of an operation by a constant; an expression with several users becomes one constant."""
        name = op.inputs[slot].name
        if name not in self._folded:
            self._folded[name] = self._constant(_name(op, slot), array)
        self.inputs[op.name, slot] = self._folded[name]

    def add_offset(self, op: Any, slot: int, offset: Any) -> None:
        """Convert a sum or difference with one constant per channel to the layer Scale, or to the bias of the layer before."""
        images = op.inputs[1 - slot]
        if op.type == "Sub":
            self._sums.add(op.name)
            self.inputs[op.name, slot] = self._constant(_name(op, slot), -offset)
        if is_bias(op) or (origin(images).type == "Mul" and any(t.op.type == "Const" for t in origin(images).inputs)):
            return
        layer = _name(op, slot).rpartition("/")[0]
        product = unused(f"{layer}/scaled", self._taken, first=1)
        self._taken.add(product)
        self._products[product] = (images.name, self._constant(f"{layer}/weights", np.ones_like(offset)))
        self.inputs[op.name, 1 - slot] = product

    def _constant(self, name: str, array: Any) -> str:
        """Add a constant, and return its name."""
        name = unused(name, self._taken, first=1)
        self._taken.add(name)
        self._arrays[name] = array
        return name

    def definition(self) -> Any:
        """Return the graph's definition with the changes."""
        definition = self._graph.as_graph_def()
        for node in definition.node:
            if node.name in self._sums:
                node.op = "AddV2"
            for slot in range(len(node.input)):
                node.input[slot] = self.inputs.get((node.name, slot), node.input[slot])
        for name, array in self._arrays.items():
            proto = tf.make_tensor_proto(array)
            node = definition.node.add(name=name, op="Const")
            node.attr["dtype"].type = proto.dtype
            node.attr["value"].tensor.CopyFrom(proto)
        for name, (images, factor) in self._products.items():
            node = definition.node.add(name=name, op="Mul", input=[images, factor])
            node.attr["T"].type = self._graph.get_tensor_by_name(images).dtype.as_datatype_enum
        return definition


def _slots(op: Any, dependent: set[Any]) -> tuple[int, ...]:
    """Return the indices of the inputs of an operation that may be weights."""
    if op.type in WEIGHTS:
        return tuple(slot for slot in WEIGHTS[op.type] if op.inputs[slot].op not in dependent)
    if op.type in ARITHMETIC:
        slots = tuple(slot for slot in (0, 1) if op.inputs[slot].op not in dependent)
        return slots if len(slots) == 1 else ()
    return ()


def _is_offset(op: Any, slot: int) -> bool:
    """Return whether an operation adds its input ``slot`` to each channel of its other input, or subtracts it."""
    tensor, images = op.inputs[slot], op.inputs[1 - slot]
    if op.type not in OFFSETS or (op.type == "Sub" and slot == 0) or not is_per_channel(tensor, images):
        return False
    return tensor.shape.num_elements() > 1 or is_bias(op)


def _is_expression(op: Any, tensor: Any) -> bool:
    """Return whether a weight is computed by operations that the description of layers does not cover."""
    source = origin(tensor)
    if source.type == "Const" or source.type in VARIABLES:
        return False
    if source.type == "Split" and op.type == "Conv2D":
        return not _is_grouped(source)
    before = reachable([source], lambda op: (operand.op for operand in op.inputs))
    if op.type in ARITHMETIC:
        # batch normalisation of variables, or of constants that freezing has made of them, is one layer
        variables = any(
            op.type in VARIABLES or (op.type == "Identity" and origin(op.inputs[0]).type == "Const") for op in before
        )
        return not (variables and any(op.type == "Rsqrt" for op in before))
    # what is only reshaped or transposed keeps its variable
    moves = (*IDENTITIES, "Reshape", "Squeeze", "ExpandDims", "Transpose", "Cast")
    while source.type in moves:
        source = source.inputs[0].op
    return source.type not in VARIABLES


def _is_grouped(split: Any) -> bool:
    """Return whether a kernel is split for the groups of one convolution: an image is split too, the outputs concatenated."""
    users = [consumer for tensor in split.outputs for consumer in tensor.consumers()]
    joined = {consumer for user in users for consumer in user.outputs[0].consumers()}
    return (
        len(users) == len(split.outputs)
        and constant(split.inputs[0]) == 3
        and all(user.type == "Conv2D" and user.inputs[0].op.type == "Split" for user in users)
        and len({user.inputs[0].op for user in users}) == 1
        and len(joined) == 1
        and next(iter(joined)).type == "ConcatV2"
    )


def _name(op: Any, slot: int) -> str:
    """Return the name of the folded weight of an operation, in the scope of its layer."""
    scope, _, last = op.name.rpartition("/")
    parts = next((parts for type, parts in PARTS.items() if op.type.startswith(type)), {})
    default = "biases" if op.type in ("Add", "AddV2", "Sub") else "weights"
    layer = scope if scope and last.startswith(op.type) else op.name
    return f"{layer}/{parts.get(slot, default)}"
