"""Inspect the tensors of a graph: constants, consumers, reachability."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from tensorflow.python.framework import tensor_util

VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")  # read shapes, not values
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "RealDiv": np.divide,
}  # fmt: skip


def number(value: Any) -> float:
    """Return a float32 as the float with the shortest decimal representation, e.g. 0.1 for float32(0.1)."""
    return float(str(np.float32(value)))


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


def constant(tensor: Any) -> Any:
    """Return the value of a tensor that is constant in the graph, else None."""
    value = tensor_util.constant_value(tensor)
    op = tensor.op
    if value is None and op.type in ("Identity", "Switch", "Enter"):
        return constant(op.inputs[0])
    if value is None and op.type in ARITHMETIC:
        first, second = (constant(operand) for operand in op.inputs)
        return None if first is None or second is None else ARITHMETIC[op.type](first, second)
    return value


def live_input(merge: Any) -> Any:
    """Return the input of a Merge that is executed, if the condition is constant, else None."""
    for tensor in merge.inputs:
        ancestors = reachable([tensor.op], lambda op: () if op.type == "Switch" else (t.op for t in op.inputs))
        for op in ancestors:
            condition = constant(op.inputs[1]) if op.type == "Switch" else None
            if condition is None:
                continue
            used = [source for other in ancestors for source in other.inputs if source.op is op]
            used += [tensor] if tensor.op is op else []
            if any(output is op.outputs[int(bool(condition))] for output in used):
                return tensor
    return None
