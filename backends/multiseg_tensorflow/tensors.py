"""Questions about a graph's tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from tensorflow.python.framework import tensor_util

VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
SHAPES = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")  # what reads no values
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add, "AddV2": np.add, "Sub": np.subtract, "Mul": np.multiply, "RealDiv": np.divide,
}  # fmt: skip


def number(value: Any) -> float:
    """A float32 as the shortest number that is it, as it was written."""
    return float(str(np.float32(value)))


def reached(start: Iterable[Any], following: Callable[[Any], Iterable[Any]]) -> set[Any]:
    """All that follows from ``start``, and that itself."""
    seen, waiting = set(), list(start)
    while waiting:
        each = waiting.pop()
        if each not in seen:
            seen.add(each)
            waiting.extend(following(each))
    return seen


def consumers(op: Any) -> list[Any]:
    """The operations that take an operation's values."""
    if op.type in SHAPES:
        return []
    return [consumer for tensor in op.outputs for consumer in tensor.consumers()]


def constant(tensor: Any) -> Any:
    """A tensor's value where the graph alone says it, else None."""
    value = tensor_util.constant_value(tensor)
    op = tensor.op
    if value is None and op.type in ("Identity", "Switch", "Enter"):
        return constant(op.inputs[0])
    if value is None and op.type in ARITHMETIC:
        first, second = (constant(each) for each in op.inputs)
        return None if first is None or second is None else ARITHMETIC[op.type](first, second)
    return value


def live(merge: Any) -> Any:
    """The input of a Merge that is computed, where the condition is a constant."""
    for tensor in merge.inputs:
        ahead = reached([tensor.op], lambda op: () if op.type == "Switch" else (each.op for each in op.inputs))
        for op in ahead:
            taken = constant(op.inputs[1]) if op.type == "Switch" else None
            if taken is None:
                continue
            used = [each for other in ahead for each in other.inputs if each.op is op]
            used += [tensor] if tensor.op is op else []
            if any(each is op.outputs[int(bool(taken))] for each in used):
                return tensor
    return None
