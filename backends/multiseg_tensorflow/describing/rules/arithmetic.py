"""Work on each element, arithmetic of two values or of one with a constant or a weight, and softmax."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from multiseg_tensorflow.describing.rules.normalisation import unfused
from multiseg_tensorflow.describing.walk import Rule, Value, Walk, Weighted, neutral_axis
from multiseg_tensorflow.tensors import number
from multiseg_tensorflow.weights import vector as vector_weight


def elementwise(type: str, **parameters: float) -> Rule:
    return lambda walk, op: walk.unary(op, type, parameters)


def leaky(walk: Walk, op: Any) -> list[Value] | None:
    return walk.unary(op, "LeakyRelu", {"alpha": number(op.get_attr("alpha"))})


def pass_on(walk: Walk, op: Any) -> list[Value] | None:
    if op.type == "Cast" and not (op.outputs[0].dtype.is_floating and op.inputs[0].dtype.is_floating):
        return None
    if op.type == "IdentityN":
        return _all_passed_on(walk, op)
    value = walk.value(op.inputs[0])
    return None if value is None else [value]


def _all_passed_on(walk: Walk, op: Any) -> list[Value] | None:
    """Values of an IdentityN; the constants among them (arguments of a custom gradient) must be read by no one."""
    values = [walk.value(tensor) for tensor in op.inputs]
    for value, tensor in zip(values, op.outputs):  # noqa: B905 - worker code runs on Python 3.9
        if value is None and any(reader in walk.between for reader in tensor.consumers()):
            return None
    some = next(value for value in values if value is not None)
    return [some if value is None else value for value in values]


def bias(walk: Walk, op: Any) -> list[Value] | None:
    """BiasAdd: of the convolution or product before it, or alone."""
    value, weight = walk.value(op.inputs[0]), walk.weight(op.inputs[1])
    return None if value is None or weight is None else _biased(walk, op, value, op.inputs[0], weight)


def _biased(walk: Walk, op: Any, value: Value, tensor: Any, weight: tuple[Any, Any]) -> list[Value] | None:
    node = value.node
    if not walk.alone(tensor) or node.parameters.get("bias_term", True):
        return None
    node.weights["bias"] = Weighted(weight[0], vector_weight)
    node.parameters["bias_term"] = True
    node.tensor = op.outputs[0]
    return [value]


def _channels(tensor: Any, value: Value, other: Any) -> bool:
    """Whether a weight has one number for each channel of an image, or each feature of a vector."""
    size = other.shape.num_elements()
    shape = tensor.shape.as_list()
    if value.layout == "NCHW":
        return bool(other.shape.rank == 4 and size == shape[1] and other.shape.as_list()[1] == size)
    return bool(other.shape.rank and size == shape[-1] and other.shape.as_list()[-1] == size)


def binary(walk: Walk, op: Any) -> list[Value] | None:
    """Arithmetic of two: two of the network's values, or one with a constant or a weight."""
    values = [walk.value(tensor) for tensor in op.inputs]
    both = [value for value in values if value is not None]
    if len(both) == 2:
        return _of_two(walk, op, both)
    place = 0 if values[0] is not None else 1
    value, tensor, other = both[0], op.inputs[place], op.inputs[1 - place]
    weight = walk.weight(other)
    if weight is None or weight[0] is not None or np.size(weight[1]) > 1:
        return _with_weight(walk, op, value, tensor, other, weight)
    scalar = number(np.ravel(weight[1])[0]) if np.size(weight[1]) else 0.0
    if op.type in ("Add", "AddV2"):
        return walk.unary(op, "Add", {"value": scalar})
    if op.type == "Mul":
        return walk.unary(op, "Mul", {"value": scalar})
    if op.type == "Sub" and place == 0:
        return walk.unary(op, "Add", {"value": -scalar})
    if op.type in ("RealDiv", "Div") and place == 0 and scalar:
        return walk.unary(op, "Mul", {"value": 1 / scalar})
    if op.type == "Pow" and place == 0:
        return walk.unary(op, "Pow", {"exponent": scalar})
    before = value.node
    if op.type == "Maximum" and before.type == "Clip" and "min" not in before.parameters:
        if walk.alone(tensor):
            before.parameters["min"] = scalar
            before.tensor = op.outputs[0]
            return [value]
    elif op.type == "Maximum" and scalar == 0:
        return walk.unary(op, "Relu")
    if op.type in ("Maximum", "Minimum"):
        return walk.unary(op, "Clip", {"min" if op.type == "Maximum" else "max": scalar})
    return None


def _of_two(walk: Walk, op: Any, values: list[Value]) -> list[Value] | None:
    shapes = [tensor.shape.as_list()[1:] for tensor in op.inputs]
    if shapes[0] != shapes[1] or values[0].layout != values[1].layout:
        return None
    for first, second, tensor in ((values[0], values[1], op.inputs[0]), (values[1], values[0], op.inputs[1])):
        node = first.node
        if op.type == "Maximum" and node.type == "Mul" and walk.alone(tensor):
            factor = node.parameters.get("value")
            if node.inputs == [second] and factor is not None and 0 < factor < 1:
                walk.nodes.remove(node)
                return walk.add(op, "LeakyRelu", [second], {"alpha": factor})
    if op.type == "Mul":
        for gate, x, tensor in ((values[0], values[1], op.inputs[0]), (values[1], values[0], op.inputs[1])):
            swish = _swish(walk, op, gate, x) if walk.alone(tensor) else None
            if swish is not None:
                return swish
    type = {"Add": "Sum", "AddV2": "Sum", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div", "Div": "Div", "Maximum": "Max"}
    return walk.add(op, type[op.type], values) if op.type in type else None


def _swish(walk: Walk, op: Any, gate: Value, x: Value) -> list[Value] | None:
    """x * sigmoid(alpha * x), which is what tf.nn.swish consists of."""
    sigmoid = gate.node
    if sigmoid.type != "Sigmoid":
        return None
    layers, alpha = [sigmoid], 1.0
    if sigmoid.inputs != [x]:
        scale = sigmoid.inputs[0].node
        if scale.type != "Mul" or scale.inputs != [x] or not walk.alone(scale.tensor):
            return None
        layers, alpha = [scale, sigmoid], scale.parameters["value"]
    for layer in layers:
        walk.nodes.remove(layer)
    (swish,) = walk.add(op, "Swish", [x], {"alpha": alpha})
    return [replace(swish, image=x.image)]


def add_n(walk: Walk, op: Any) -> list[Value] | None:
    values = [walk.value(tensor) for tensor in op.inputs]
    if any(value is None or value.layout != values[0].layout for value in values if values[0]):
        return None
    return walk.add(op, "Sum", [value for value in values if value is not None])


def _with_weight(
    walk: Walk, op: Any, value: Value, tensor: Any, other: Any, weight: tuple[Any, Any] | None
) -> list[Value] | None:
    adds = op.type in ("Add", "AddV2")
    before = value.node
    if not _channels(tensor, value, other) or value.image is not None:
        return None
    if weight is None:  # an expression of weights: batch normalisation's
        return unfused(walk, op, value, tensor, other) if adds or op.type == "Mul" else None
    if adds and before.parameters.get("bias_term") is False:
        return _biased(walk, op, value, tensor, weight)
    if op.type == "Mul" and weight[0] is not None and value.layout is not None:
        return walk.add(
            op, "Scale", [value], {"bias_term": False}, weights={"weight": Weighted(weight[0], vector_weight)}
        )
    return None


def last_axis(type: str) -> Rule:
    def rule(walk: Walk, op: Any) -> list[Value] | None:
        value, rank = walk.value(op.inputs[0]), op.inputs[0].shape.rank
        if value is None or (value.image is not None and value.layout != "ROWS"):
            return None
        axis = 1 if value.layout == "ROWS" else neutral_axis(rank - 1, rank, value.layout)
        (made,) = walk.add(op, type, [value], {"axis": axis})
        return [replace(made, image=value.image)]

    return rule
