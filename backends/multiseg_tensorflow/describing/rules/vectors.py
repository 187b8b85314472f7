"""Vectors: images flattened to them, products with a matrix, and images made of them.

TensorFlow flattens in the order H, W, C, the neutral order is C, H, W. Where a matrix takes the vector, its weights are
reordered instead.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from multiseg_tensorflow.describing.walk import Value, Walk, Weighted
from multiseg_tensorflow.tensors import SHAPES, constant
from multiseg_tensorflow.weights import dense as dense_weight
from multiseg_tensorflow.weights import pointwise as pointwise_weight
from multiseg_tensorflow.weights import vector as vector_weight

ON_EACH = ("Identity", "Relu", "Relu6", "Sigmoid", "Tanh", "Elu", "LeakyRelu", "Softplus")


def dense(walk: Walk, op: Any) -> list[Value] | None:
    value, weight = walk.value(op.inputs[0]), walk.weight(op.inputs[1])
    if value is None or value.layout not in (None, "ROWS") or weight is None or op.get_attr("transpose_a"):
        return None
    if value.layout == "ROWS":
        return _dense_on_pixels(walk, op, value, weight)
    if op.get_attr("transpose_b"):
        if value.image is not None:
            return None
        weighted = Weighted(weight[0], vector_weight)
    else:
        weighted = Weighted(weight[0], dense_weight, (value.image, None))
    parameters = {"num_output": op.outputs[0].shape.as_list()[1], "bias_term": False}
    (made,) = walk.add(op, "Gemm", [value], parameters, weights={"weight": weighted})
    return [replace(made, dense=None if op.get_attr("transpose_b") else made.node)]


def _dense_on_pixels(walk: Walk, op: Any, value: Value, weight: tuple[Any, Any]) -> list[Value] | None:
    """The product of each pixel's channels with a matrix: a convolution."""
    if op.get_attr("transpose_b") or value.image is None:
        return None
    outputs = op.outputs[0].shape.as_list()[1]
    parameters = {"num_output": outputs, "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0],
                  "dilations": [1, 1], "group": 1, "bias_term": False}  # fmt: skip
    (made,) = walk.add(op, "Conv", [value], parameters, weights={"weight": Weighted(weight[0], pointwise_weight)})
    height, width, _ = value.image
    made.node.shapes = [[outputs, height, width]]
    return [replace(made, image=(height, width, outputs))]


def reshape(walk: Walk, op: Any) -> list[Value] | None:
    """Reshape, Squeeze and ExpandDims: to a vector, to an image, to a pixel each and back."""
    value = walk.value(op.inputs[0])
    before, after = op.inputs[0].shape.as_list(), op.outputs[0].shape.as_list()
    if value is None or None in before[1:] or None in after[1:]:
        return None
    batch = after[0] == before[0]
    if value.layout == "ROWS":
        image = value.image or (0, 0, 0)
        return [replace(value, layout="NHWC", image=None)] if after[1:] == list(image) else None
    if batch and after == before:
        return [value]
    if value.layout in ("NHWC", "NCHW"):
        if batch and len(after) == 2:
            return _flatten(walk, op, value)
        height, width, channels = before[1:]
        if value.layout == "NHWC" and len(after) == 2 and after[1] == channels:
            return [replace(value, layout="ROWS", image=(height, width, channels))]
        return None
    if batch and len(before) == 2 and len(after) == 4:
        return _image(walk, op, value, after)
    return None


def _flatten(walk: Walk, op: Any, value: Value) -> list[Value]:
    shape = op.inputs[0].shape.as_list()[1:]
    if value.layout == "NHWC" and shape[0] * shape[1] > 1:
        if _leads_to_dense(walk, op.outputs[0]):  # whose weights are reordered instead
            (made,) = walk.add(op, "Flatten", [value])
            return [replace(made, layout=None, image=(shape[0], shape[1], shape[2]))]
        (value,) = walk.add(op, "Transpose", [value], {"perm": [0, 2, 3, 1]})
        value.node.shapes = [shape]
    (made,) = walk.add(op, "Flatten", [value])
    return [replace(made, layout=None)]


def _leads_to_dense(walk: Walk, tensor: Any) -> bool:
    """Whether products with a matrix, and nothing else, take a vector, if need be after work on each element."""
    waiting, found = [tensor], False
    while waiting:
        users = [op for op in waiting.pop().consumers() if op in walk.between and op.type not in SHAPES]
        if not users:
            return False  # the output
        for op in users:
            if op.type == "MatMul" and op.inputs[0].op in walk.fed and not op.get_attr("transpose_b"):
                found = True
            elif op.type in ON_EACH:
                waiting.append(op.outputs[0])
            else:
                return False
    return found


def _image(walk: Walk, op: Any, value: Value, after: list[int]) -> list[Value] | None:
    if value.image is None and _is_channels_first(walk, op):
        (made,) = walk.add(op, "Reshape", [value], {"shape": after[1:]})
        made.node.shapes = [after[1:]]
        return [replace(made, layout="NCHW")]
    height, width, channels = after[1:]
    if value.image is not None:
        if list(value.image) != after[1:]:
            return None
    elif height * width > 1:
        node = value.dense
        if node is None or not walk.alone(op.inputs[0]):
            (made,) = walk.add(op, "Reshape", [value], {"shape": after[1:]})
            made.node.shapes = [after[1:]]
            (made,) = walk.add(op, "Transpose", [made], {"perm": [0, 3, 1, 2]})
            made.node.shapes = [[channels, height, width]]
            return [replace(made, layout="NHWC")]
        size = (height, width, channels)
        weight = node.weights["weight"]
        node.weights["weight"] = replace(weight, arguments=(weight.arguments[0], size))
        if "bias" in node.weights:
            node.weights["bias"] = replace(node.weights["bias"], arguments=(size,))
    (made,) = walk.add(op, "Reshape", [value], {"shape": [channels, height, width]})
    made.node.shapes = [[channels, height, width]]
    return [replace(made, layout="NHWC")]


def _is_channels_first(walk: Walk, op: Any) -> bool:
    """Whether an image is brought from NCHW into NHWC by whatever takes it."""
    users = [user for user in op.outputs[0].consumers() if user in walk.between]
    orders = [constant(user.inputs[1]) if user.type == "Transpose" else None for user in users]
    return all(order is not None and order.tolist() == [0, 2, 3, 1] for order in orders)
