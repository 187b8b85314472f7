"""Inspect the tensors of a graph: constants, consumers, reachability."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import tensorflow
from tensorflow.python.framework import tensor_util

tf = tensorflow.compat.v1

VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")  # read shapes, not values
INPUT_SCOPE = "given"  # of the operations that convert images to the input of a plain graph
LOOPS = ("NextIteration", "LoopCond", "Exit", "RefSwitch", "RefMerge", "RefEnter")


def number(value: Any) -> float:
    """Return a float32 as the float with the shortest decimal representation, e.g. 0.1 for float32(0.1)."""
    return float(str(np.float32(value)))


def in_control_flow(op: Any) -> bool:
    """Return whether an operation belongs to a loop or a branch of a condition, so that its output has no value, or several.

    The results of a loop are those of Exit operations, which have the context of their loop.
    """
    context = op._get_control_flow_context()
    return (context and context.outer_context if op.type == "Exit" else context) is not None


def reachable(start: Iterable[Any], following: Callable[[Any], Iterable[Any]]) -> set[Any]:
    """Return the items of ``start`` and all items that ``following`` reaches from them."""
    visited, waiting = set(), list(start)
    while waiting:
        item = waiting.pop()
        if item not in visited:
            visited.add(item)
            waiting.extend(following(item))
    return visited


def consumers(op: Any) -> list[Any]:
    """Return the operations that use the values of an operation's outputs."""
    if op.type in SHAPES:
        return []
    return [consumer for tensor in op.outputs for consumer in tensor.consumers()]


def live_consumers(op: Any) -> list[Any]:
    """Return the operations that use the values of an operation's outputs, without those on a branch that is never executed."""
    if op.type == "Switch" and constant(op.inputs[1]) is not None:
        return list(op.outputs[int(bool(constant(op.inputs[1])))].consumers())
    return consumers(op)


def branches(op: Any) -> list[Any]:
    """Return the operations for which an operation without inputs waits because it belongs to a branch of a condition."""
    return [
        control for control in op.control_inputs if control.type == "Identity" and control.inputs[0].op.type == "Switch"
    ]


def constant(tensor: Any) -> Any:
    """Return the value of a tensor that is constant in the graph, else None."""
    graph = tensor.graph
    if graph not in _CONSTANTS:
        _CONSTANTS[graph] = Constants()
    return _CONSTANTS[graph].value(tensor)


def live_input(merge: Any) -> Any:
    """Return the input of a Merge that is executed, if the condition is constant, else None."""
    return Constants().live_input(merge)


class Constants:
    """Computes the values of the tensors of a graph that do not depend on images, variables or random numbers.

    ``values`` are the values of variables and placeholders that count as constants, by the name of their operation.
    """

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._given = dict(values or {})
        self._values: dict[str, Any] = {}  # by tensor name; None if it is not constant

    def value(self, tensor: Any) -> Any:
        """Return the value of a tensor, or None if it is not constant."""
        waiting, open_names = [tensor], {tensor.name}
        while waiting:
            current = waiting[-1]
            if current.name not in self._values:
                operands = self._operands(current)
                known = [self._values.get(operand.name, PENDING) for operand in operands or []]
                if operands is None or any(value is None for value in known):
                    self._values[current.name] = None
                elif any(value is PENDING for value in known):
                    following = next(o for o, value in zip(operands, known) if value is PENDING)  # noqa: B905
                    if following.name in open_names:  # a loop
                        self._values[current.name] = None
                    else:
                        waiting.append(following)
                        open_names.add(following.name)
                    continue
                elif operands:
                    self._values[current.name] = _computed(current, operands, known)
            open_names.discard(waiting.pop().name)
        return self._values[tensor.name]

    def live_input(self, merge: Any) -> Any:
        """Return the input of a Merge that is executed, if the condition is constant, else None."""
        for tensor in merge.inputs:
            conditions = list(self._conditions(tensor))
            if conditions and all(conditions):
                return tensor
        return None

    def _conditions(self, tensor: Any) -> Iterator[bool]:
        """Yield, for every Switch with a constant condition before a tensor, whether it passes its input on to the tensor."""
        waiting, visited = [tensor], set()
        while waiting:
            source = waiting.pop()
            if source.name in visited:
                continue
            visited.add(source.name)
            op = source.op
            if op.type == "Switch":
                condition = self.value(op.inputs[1])
                if condition is not None:
                    yield source is op.outputs[int(bool(condition))]
                waiting.append(op.inputs[0])
            elif op.type == "Merge":
                live = self.live_input(op)
                waiting += [] if live is None else [live]
            elif op.type not in LOOPS:
                waiting += op.inputs
                waiting += [pivot.inputs[0] for pivot in branches(op)]

    def _operands(self, tensor: Any) -> list[Any] | None:
        """Return the tensors that a tensor is computed from; None if it is not constant.

        An empty list means that its value is in ``_values`` now.
        """
        op = tensor.op
        variable = op.inputs[0].op if op.type == "ReadVariableOp" else op
        value = self._given.get(variable.name)
        if value is None:
            value = tensor_util.constant_value(tensor)
        if value is not None:
            self._values[tensor.name] = value
            return []
        if op.type in ("Identity", "Switch", "Enter"):
            return [op.inputs[0]]
        if op.type == "Merge":
            live = self.live_input(op)
            return None if live is None or tensor is not op.outputs[0] else [live]
        if not op.inputs or op.type in (*SHAPES, *LOOPS) or op.op_def.is_stateful:
            return None
        return list(op.inputs)


PENDING = object()
_CONSTANTS: MutableMapping[Any, Constants] = weakref.WeakKeyDictionary()


def _computed(tensor: Any, operands: list[Any], values: list[Any]) -> Any:
    """Return the value of a tensor for the values of its operation's inputs; None if TensorFlow cannot compute it."""
    if tensor.op.type in ("Identity", "Switch", "Enter", "Merge"):
        return values[0]
    try:
        return function_of(tensor, operands)(values)
    except (ValueError, TypeError, KeyError, tf.errors.OpError):
        return None


def function_of(tensor: Any, arguments: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
    """Return a function that computes a tensor from the values of the tensors ``arguments``.

    It runs a graph of the operations between them alone, since a graph with all weights takes seconds to start.
    """
    fed = {argument.op for argument in arguments}
    ops = reachable(
        [tensor.op], lambda op: () if op in fed else [*(operand.op for operand in op.inputs), *branches(op)]
    )
    definition = tf.GraphDef()
    for op in sorted(ops - fed, key=lambda op: op._id):
        node = definition.node.add()
        node.CopyFrom(op.node_def)
        node.device = ""
        node.attr.pop("_class", None)
        inputs = [name for name in node.input if not name.startswith("^")] + [
            f"^{pivot.name}" for pivot in branches(op)
        ]
        del node.input[:]
        node.input.extend(inputs)
    graph = tf.Graph()
    with graph.as_default():
        inputs = [tf.placeholder(argument.dtype) for argument in arguments]
        mapping = {argument.name: source for argument, source in zip(arguments, inputs)}  # noqa: B905
        (output,) = tf.import_graph_def(definition, mapping, [tensor.name], name="")
    session = tf.Session(graph=graph, config=tf.ConfigProto(device_count={"GPU": 0}))
    return lambda values: session.run(output, dict(zip(inputs, values)))  # noqa: B905
