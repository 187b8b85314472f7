"""Convert elementwise operations, arithmetic of two values or of a value with a constant or a weight, and softmax."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from multiseg_tensorflow.describing.rules.normalisation import by_moments, unfused
from multiseg_tensorflow.describing.walk import Node, Rule, Value, VariableRef, Walk, neutral_axis
from multiseg_tensorflow.tensors import INPUT_SCOPE, number
from multiseg_tensorflow.weights import flat as flat_weight
from multiseg_tensorflow.weights import vector as vector_weight


def elementwise(type: str, **parameters: float) -> Rule:
    """Return the rule of an elementwise operation that becomes a layer of ``type``."""
    return lambda walk, op: walk.unary(op, type, parameters)


def leaky(walk: Walk, op: Any) -> list[Value] | None:
    """Convert LeakyRelu."""
    return walk.unary(op, "LeakyRelu", {"alpha": number(op.get_attr("alpha"))})


def select(walk: Walk, op: Any) -> list[Value] | None:
    """Convert where(x > 0, elu(x), alpha * elu(x)), the operations of Keras's ELU; None for other selections."""
    values = [walk.value(tensor) for tensor in op.inputs]
    condition, above, below = values
    if condition is None or above is None or below is None or above.node.type != "Elu" or below.node.inputs != [above]:
        return None
    elu, scaled, greater = above.node, below.node, condition.node
    is_positive = (
        greater.type == "tf.Greater" and greater.inputs == elu.inputs and greater.parameters.get("input1") == 0
    )
    if scaled.type != "Mul" or elu.parameters["alpha"] != 1 or not is_positive:
        return None
    return walk.add(op, "Elu", elu.inputs, {"alpha": scaled.parameters["value"]})


def pass_on(walk: Walk, op: Any) -> list[Value] | None:
    """Return the input of an operation that does not change values; it becomes no layer."""
    if op.type == "Cast" and not (op.outputs[0].dtype.is_floating and op.inputs[0].dtype.is_floating):
        return _cast(walk, op)
    if op.type == "IdentityN":
        return _identity_n(walk, op)
    value = walk.value(op.inputs[0])
    return None if value is None else [value]


def _cast(walk: Walk, op: Any) -> list[Value] | None:
    """Return the images of a graph whose input is an integer: they are whole numbers, which no cast changes."""
    value = walk.value(op.inputs[0])
    if (
        value is None
        or value.node not in walk.sources
        or not (op.outputs[0].dtype.is_floating or op.outputs[0].dtype.is_integer)
    ):
        return None
    of_graph = op.name.rpartition("/")[0].rpartition("/")[2] == INPUT_SCOPE
    return [value] if of_graph or op.inputs[0].dtype.is_integer else None


def _identity_n(walk: Walk, op: Any) -> list[Value] | None:
    """Return the values of an IdentityN. Constants among its inputs (arguments of a custom gradient) must be unused."""
    values = [walk.value(tensor) for tensor in op.inputs]
    for value, tensor in zip(values, op.outputs):  # noqa: B905 - worker code runs on Python 3.9
        if value is None and any(consumer in walk.path_ops for consumer in tensor.consumers()):
            return None
    first = next(value for value in values if value is not None)
    return [first if value is None else value for value in values]


def bias(walk: Walk, op: Any) -> list[Value] | None:
    """Convert BiasAdd: add the bias to the convolution or dense layer before it."""
    value, weight = walk.value(op.inputs[0]), walk.weight(op.inputs[1])
    return None if value is None or weight is None else _with_bias(walk, op, value, op.inputs[0], weight)


def _with_bias(walk: Walk, op: Any, value: Value, tensor: Any, weight: tuple[Any, Any]) -> list[Value] | None:
    """Set ``weight`` as the bias of the layer that ``value`` comes from; None if the layer cannot have it."""
    node = value.node
    if not walk.has_single_consumer(tensor) or node.parameters.get("bias_term", True):
        return None
    node.weights["bias"] = VariableRef(weight[0], vector_weight)
    node.parameters["bias_term"] = True
    node.tensor = op.outputs[0]
    return [value]


def _is_per_channel(tensor: Any, value: Value, other: Any) -> bool:
    """Return whether the tensor ``other`` has one element for each channel of an image, or each feature of a vector."""
    size = other.shape.num_elements()
    shape = tensor.shape.as_list()
    if value.layout == "NCHW":
        return bool(other.shape.rank == 4 and size == shape[1] and other.shape.as_list()[1] == size)
    return bool(other.shape.rank and size == shape[-1] and other.shape.as_list()[-1] == size)


def binary(walk: Walk, op: Any) -> list[Value] | None:
    """Convert an operation with two inputs: two values of the network, or a value and a constant or a weight."""
    inputs = [walk.value(tensor) for tensor in op.inputs]
    values = [value for value in inputs if value is not None]
    if len(values) == 2:
        adds = op.type in ("Add", "AddV2")
        combined = (by_moments(walk, op) or _prelu_by_sum(walk, op, values)) if adds else None
        return combined or _binary_of_values(walk, op, values)
    place = 0 if inputs[0] is not None else 1
    value, tensor, other = values[0], op.inputs[place], op.inputs[1 - place]
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
    previous = value.node
    if op.type == "Maximum" and previous.type == "Clip" and "min" not in previous.parameters:
        if walk.has_single_consumer(tensor):
            previous.parameters["min"] = scalar
            previous.tensor = op.outputs[0]
            return [value]
    elif op.type == "Maximum" and scalar == 0:
        return walk.unary(op, "Relu")
    if op.type in ("Maximum", "Minimum"):
        return walk.unary(op, "Clip", {"min" if op.type == "Maximum" else "max": scalar})
    return None


def _binary_of_values(walk: Walk, op: Any, values: list[Value]) -> list[Value] | None:
    """Convert an operation with two values of the network; recognise LeakyReLU and Swish written as arithmetic."""
    shapes = [tensor.shape.as_list()[1:] for tensor in op.inputs]
    if values[0].layout != values[1].layout:
        return None
    if shapes[0] != shapes[1]:
        return _product_per_channel(walk, op, values, shapes)
    for first, second, tensor in ((values[0], values[1], op.inputs[0]), (values[1], values[0], op.inputs[1])):
        node = first.node
        if op.type == "Maximum" and node.type == "Mul" and walk.has_single_consumer(tensor):
            factor = node.parameters.get("value")
            if node.inputs == [second] and factor is not None and 0 < factor < 1:
                walk.nodes.remove(node)
                return walk.add(op, "LeakyRelu", [second], {"alpha": factor})
    if op.type == "Mul":
        for gate, x, tensor in ((values[0], values[1], op.inputs[0]), (values[1], values[0], op.inputs[1])):
            swish = _swish(walk, op, gate, x) if walk.has_single_consumer(tensor) else None
            if swish is not None:
                return swish
    if op.type == "Sub" and all(walk.has_single_consumer(tensor) for tensor in op.inputs):
        prelu = _prelu(walk, op, *values)
        if prelu is not None:
            return prelu
    types = {"Add": "Sum", "AddV2": "Sum", "Sub": "Sub", "Mul": "Mul", "RealDiv": "Div", "Div": "Div", "Maximum": "Max"}
    return walk.add(op, types[op.type], values) if op.type in types else None


def _product_per_channel(walk: Walk, op: Any, values: list[Value], shapes: list[list[int]]) -> list[Value] | None:
    """Convert a product of images with one value for each of their channels, (1, 1, C)."""
    if op.type != "Mul" or values[0].layout != "NHWC" or len(shapes[0]) != 3 or len(shapes[1]) != 3:
        return None
    for image, factor in ((0, 1), (1, 0)):
        if shapes[factor] == [1, 1, shapes[image][2]]:
            return walk.add(op, "Mul", [values[image], values[factor]])
    return None


def _swish(walk: Walk, op: Any, gate: Value, x: Value) -> list[Value] | None:
    """Convert x * sigmoid(alpha * x), the operations of tf.nn.swish; None if ``gate`` is not such a sigmoid."""
    sigmoid = gate.node
    if sigmoid.type != "Sigmoid":
        return None
    layers, alpha = [sigmoid], 1.0
    if sigmoid.inputs != [x]:
        scale = sigmoid.inputs[0].node
        if scale.type != "Mul" or scale.inputs != [x] or not walk.has_single_consumer(scale.tensor):
            return None
        layers, alpha = [scale, sigmoid], scale.parameters["value"]
    for layer in layers:
        walk.nodes.remove(layer)
    (swish,) = walk.add(op, "Swish", [x], {"alpha": alpha})
    return [replace(swish, image=x.image)]


def _prelu(walk: Walk, op: Any, above: Value, below: Value) -> list[Value] | None:
    """Convert relu(x) - slopes * relu(-x), with a slope for each channel or one for all; None for other differences."""
    scale, x = below.node, above.node.inputs[0] if above.node.inputs else None
    slope = _slope(scale)
    if above.node.type != "Relu" or x is None or slope is None:
        return None
    negative = scale.inputs[0].node
    flipped = negative.inputs[0].node if negative.inputs else None
    if negative.type != "Relu" or flipped is None or flipped.type != "Neg" or flipped.inputs != [x]:
        return None
    if not all(walk.has_single_consumer(node.tensor) for node in (negative, flipped)):
        return None
    for node in (above.node, scale, negative, flipped):
        walk.nodes.remove(node)
    slopes, weight = slope
    (output,) = walk.add(op, "PRelu", [x], {"num_parameters": slopes}, weights={"weight": weight})
    return [replace(output, image=x.image)]


def _prelu_by_sum(walk: Walk, op: Any, values: list[Value]) -> list[Value] | None:
    """Convert relu(x) + -slopes * relu(-x), the layer of Keras, with a slope for each channel; None for other sums."""
    above, product = op.inputs[0].op, op.inputs[1].op
    if above.type != "Relu" or product.type != "Mul" or values[0].node.op is not above:
        return None
    x, sides = above.inputs[0], list(product.inputs)
    negated = next((side for side in sides if side.op.type == "Neg" and walk.value(side) is None), None)
    below = next((side for side in sides if side.op.type == "Relu" and side.op.inputs[0].op.type == "Neg"), None)
    if negated is None or below is None or below.op.inputs[0].op.inputs[0] is not x:
        return None
    weight = walk.weight(negated.op.inputs[0])
    if weight is None or weight[0] is None or not _is_per_channel(x, values[0].node.inputs[0], negated):
        return None
    replaced = (above, product, below.op, below.op.inputs[0].op)
    if not all(walk.has_single_consumer(part.outputs[0]) for part in replaced):
        return None
    for node in [node for node in walk.nodes if node.op in replaced]:
        walk.nodes.remove(node)
    slopes = negated.shape.as_list()[-1]
    weights = {"weight": VariableRef(weight[0], flat_weight)}
    return walk.add(op, "PRelu", [values[0].node.inputs[0]], {"num_parameters": slopes}, weights=weights)


def _slope(scale: Node) -> tuple[int, VariableRef] | None:
    """Return the number of slopes and the variable of a product with one for each channel (Scale), or one for all."""
    if len(scale.inputs) != 1 or len(scale.weights) != 1:
        return None
    (weight,) = scale.weights.values()
    if scale.type == "Scale" and not scale.parameters["bias_term"]:
        return scale.shapes[0][0], weight
    shape = weight.variable.node_def.attr["shape"].shape.dim if scale.type == "tf.Mul" and weight.variable else []
    return (1, VariableRef(weight.variable, vector_weight)) if [dim.size for dim in shape] == [1] else None


def add_n(walk: Walk, op: Any) -> list[Value] | None:
    """Convert AddN: the sum of any number of values of the same layout."""
    values = [walk.value(tensor) for tensor in op.inputs]
    if any(value is None or value.layout != values[0].layout for value in values if values[0]):
        return None
    return walk.add(op, "Sum", [value for value in values if value is not None])


def _with_weight(
    walk: Walk, op: Any, value: Value, tensor: Any, other: Any, weight: tuple[Any, Any] | None
) -> list[Value] | None:
    """Convert an operation of a value with a weight, a constant or an expression of weights, one for each channel."""
    adds = op.type in ("Add", "AddV2")
    previous = value.node
    if not _is_per_channel(tensor, value, other) or value.image is not None:
        return None
    if weight is None:  # an expression of weights: batch normalisation
        return unfused(walk, op, value, tensor, other) if adds or op.type == "Mul" else None
    if adds and previous.parameters.get("bias_term") is False:
        return _with_bias(walk, op, value, tensor, weight)
    if op.type == "Mul" and weight[0] is not None and (value.layout is not None or tensor.shape.rank == 2):
        return walk.add(
            op, "Scale", [value], {"bias_term": False}, weights={"weight": VariableRef(weight[0], vector_weight)}
        )
    return None


def last_axis(type: str) -> Rule:
    """Return the rule of an operation over the last axis, such as Softmax."""

    def rule(walk: Walk, op: Any) -> list[Value] | None:
        value, rank = walk.value(op.inputs[0]), op.inputs[0].shape.rank
        if value is None or (value.image is not None and value.layout != "ROWS"):
            return None
        axis = 1 if value.layout == "ROWS" else neutral_axis(rank - 1, rank, value.layout)
        (output,) = walk.add(op, type, [value], {"axis": axis})
        return [replace(output, image=value.image)]

    return rule
