"""Dropout in a graph that trains: TensorFlow has no operation for it, only random numbers and what is done with them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg_tensorflow import digits
from multiseg_tensorflow.tensors import constant, number

RANDOM = ("RandomUniform", "StatelessRandomUniformV2")
MASKS = ("GreaterEqual", "Floor")
SCALES = ("Mul", "RealDiv", "Div")


@dataclass(frozen=True)
class Dropout:
    """``result`` is the operation that makes what is left of the tensor ``source``."""

    source: Any
    result: Any
    name: str
    ratio: float


def find(graph: Any) -> list[Dropout]:
    """All dropout in a graph, also of ratio 0."""
    found = []
    for op in graph.get_operations():
        if op.type in RANDOM:
            mask = _mask(op)
            ratio = None if mask is None else _ratio(mask)
            ends = None if mask is None else _ends(mask)
            if ends is not None and ratio is not None:
                scope = re.sub(r"/random_uniform\b.*", "", op.name)
                inner = re.sub(r"/dropout(_\d+)?$", "", scope)  # TensorFlow's own, in the scope that the user gave
                found.append(Dropout(*ends, scope if inner in ("", digits.GraphKeys.MODEL) else inner, ratio))
    return found


def _mask(op: Any) -> Any:
    """The operation that turns random numbers into 0 and 1, or false and true."""
    for _ in range(4):  # scaled to their interval, shifted
        users = op.outputs[0].consumers() if op.outputs else []
        if len(users) != 1:
            return None
        op = users[0]
        if op.type in MASKS:
            return op
    return None


def _ratio(mask: Any) -> float | None:
    """random >= ratio, or floor(random + (1 - ratio))."""
    if mask.type == "GreaterEqual":
        value = constant(mask.inputs[1])
        return None if value is None else number(value)
    for tensor in mask.inputs[0].op.inputs:
        value = constant(tensor)
        if value is not None and np.size(value) == 1:
            return number(np.float32(1) - np.float32(value))
    return None


def _ends(mask: Any) -> tuple[Any, Any] | None:
    """The tensor whose scaled copy the mask selects from, or is multiplied with, and the operation that does so."""
    users = mask.outputs[0].consumers()
    while len(users) == 1 and users[0].type == "Cast":
        users = users[0].outputs[0].consumers()
    for user in users:
        if user.type in ("SelectV2", "Select", "Mul"):
            others = [tensor for tensor in user.inputs if constant(tensor) is None and tensor.op.type in SCALES]
            for tensor in others:
                kept = [each for each in tensor.op.inputs if constant(each) is None]
                if len(kept) == 1:
                    return kept[0], user
    return None
