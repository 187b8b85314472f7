"""The layers of a user's graph: which tensors hold what each of them made, and what they are called.

A TensorFlow 1 file has operations, not layers. An operation counts as a layer where it lies between the images and the
output and computes something; one that reads variables is called as their layer is, with its bias as part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow

from multiseg_tensorflow import digits

# what only passes values on
PLUMBING = {"Placeholder", "Identity", "StopGradient", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Cast"}
LINEAR = {"Conv2D", "Conv2DBackpropInput", "DepthwiseConv2dNative", "MatMul"}
ADDITIONS = {"BiasAdd", "Add", "AddV2"}


def neutral_name(name: str) -> str:
    """``model/conv1/weights`` to ``conv1.weight``, whichever of TensorFlow's layer libraries made the variable."""
    *layer, last = name.split("/")
    if layer[:1] == [digits.GraphKeys.MODEL]:
        del layer[0]
    kinds = {"weights": "weight", "kernel": "weight", "biases": "bias"}
    return ".".join([*layer, kinds.get(last, last)])


def layer_of(operation: Any) -> str | None:
    """The layer whose variables an operation reads; None where it reads none."""
    for tensor in operation.inputs:
        source = tensor.op
        while source.type in ("Identity", "ReadVariableOp"):
            source = source.inputs[0].op
        if source.type in ("VarHandleOp", "VariableV2"):
            return neutral_name(source.name).rpartition(".")[0]
    return None


def layer_tensors(x: Any, output: Any) -> dict[str, Any]:
    """Each layer's output tensor by the layer's name, in the order of computation, from ``x`` to ``output``."""
    ahead = _reached(x.op, lambda op: (user for tensor in _floats(op.outputs) for user in tensor.consumers()))
    behind = _reached(output.op, lambda op: (tensor.op for tensor in _floats(op.inputs)))
    found: dict[str, Any] = {}
    linear: dict[Any, str] = {}  # an operation that a bias may be added to -> its layer
    for op in x.graph.get_operations():
        if op not in ahead or op not in behind or op.type in PLUMBING:
            continue
        layer, before = layer_of(op), next((each.op for each in op.inputs if each.op in linear), None)
        if op.type in ADDITIONS and layer and before is not None and len(before.outputs[0].consumers()) == 1:
            name = linear[before]
        else:
            name = layer if layer and layer not in found else neutral_name(op.name)
        if op.type in LINEAR:
            linear[op] = name
        found[name] = op.outputs[0]
    return found


def _floats(tensors: Iterable[Any]) -> list[Any]:
    return [tensor for tensor in tensors if tensor.dtype == tensorflow.float32]


def _reached(start: Any, following: Callable[[Any], Iterable[Any]]) -> set[Any]:
    seen, waiting = {start}, [start]
    while waiting:
        new = set(following(waiting.pop())) - seen
        seen |= new
        waiting += new
    return seen
