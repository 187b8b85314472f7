"""Convert operations on vectors: flattened images, dense layers, and vectors reshaped to images.

TensorFlow flattens images in the order H, W, C; the neutral order is C, H, W. If a dense layer takes the vector, its
weights are reordered instead of the vector.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from multiseg_tensorflow.describing.walk import PASSED, Value, VariableRef, Walk
from multiseg_tensorflow.tensors import SHAPES, constant
from multiseg_tensorflow.weights import dense as dense_weight
from multiseg_tensorflow.weights import moved as moved_weight
from multiseg_tensorflow.weights import pointwise as pointwise_weight

ELEMENTWISE = ("Identity", "Relu", "Relu6", "Sigmoid", "Tanh", "Elu", "LeakyRelu", "Softplus")


def dense(walk: Walk, op: Any) -> list[Value] | None:
    """Convert MatMul with a weight: a dense layer, or a 1x1 convolution if its rows are pixels."""
    value = walk.value(op.inputs[0])
    matrix, transposed = op.inputs[1], bool(op.get_attr("transpose_b"))
    while matrix.op.type in (*PASSED, "Transpose"):
        if matrix.op.type == "Transpose":
            if constant(matrix.op.inputs[1]) is None:
                return None
            transposed ^= constant(matrix.op.inputs[1]).tolist() == [1, 0]
        matrix = matrix.op.inputs[0]
    weight = walk.weight(matrix)
    if value is None or value.layout not in (None, "ROWS") or weight is None or op.get_attr("transpose_a"):
        return None
    if value.layout == "ROWS":
        return _dense_on_pixels(walk, op, value, weight[0], transposed)
    view = matrix.shape.as_list() if matrix.shape.is_fully_defined() and matrix.shape.rank == 2 else None
    weight_ref = VariableRef(weight[0], partial(dense_weight, view=view, transposed=transposed), (value.image, None))
    parameters = {"num_output": op.outputs[0].shape.as_list()[1], "bias_term": False}
    (output,) = walk.add(op, "Gemm", [value], parameters, weights={"weight": weight_ref})
    return [replace(output, dense=output.node)]


def _dense_on_pixels(walk: Walk, op: Any, value: Value, variable: Any, transposed: bool) -> list[Value] | None:
    """Convert the product of each pixel's channels with a matrix to a 1x1 convolution."""
    if value.image is None:
        return None
    outputs = op.outputs[0].shape.as_list()[1]
    parameters = {"num_output": outputs, "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0],
                  "dilations": [1, 1], "group": 1, "bias_term": False}  # fmt: skip
    layout = VariableRef(variable, moved_weight, (pointwise_weight, None, [1, 0] if transposed else [0, 1]))
    (output,) = walk.add(op, "Conv", [value], parameters, weights={"weight": layout})
    height, width, _ = value.image
    output.node.shapes = [[outputs, height, width]]
    return [replace(output, image=(height, width, outputs))]


def reshape(walk: Walk, op: Any) -> list[Value] | None:
    """Convert Reshape, Squeeze and ExpandDims: image to vector, vector to image, image to rows of pixels and back."""
    value = walk.value(op.inputs[0])
    before, after = op.inputs[0].shape.as_list(), op.outputs[0].shape.as_list()
    if value is None or None in before[1:] or None in after[1:]:
        return None
    same_batch = after[0] == before[0]
    if value.layout == "ROWS":
        image = value.image or (0, 0, 0)
        return [replace(value, layout="NHWC", image=None)] if after[1:] == list(image) else None
    if same_batch and after == before:
        return [value]
    if value.layout in ("NHWC", "NCHW"):
        if same_batch and len(after) == 2:
            return _flatten(walk, op, value)
        height, width, channels = before[1:]
        if value.layout == "NHWC" and len(after) == 2 and after[1] == channels:
            return [replace(value, layout="ROWS", image=(height, width, channels))]
        return None
    if same_batch and len(before) == 2 and len(after) == 4:
        return _image(walk, op, value, after)
    return None


def _flatten(walk: Walk, op: Any, value: Value) -> list[Value]:
    """Convert the reshape of an image to a vector."""
    shape = op.inputs[0].shape.as_list()[1:]
    if value.layout == "NHWC" and shape[0] * shape[1] > 1:
        if _leads_to_dense(walk, op.outputs[0]):  # reorder the weights of the dense layers instead
            (output,) = walk.add(op, "Flatten", [value])
            return [replace(output, layout=None, image=(shape[0], shape[1], shape[2]))]
        (value,) = walk.add(op, "Transpose", [value], {"perm": [0, 2, 3, 1]})
        value.node.shapes = [shape]
    (output,) = walk.add(op, "Flatten", [value])
    return [replace(output, layout=None)]


def _leads_to_dense(walk: Walk, tensor: Any) -> bool:
    """Return whether only dense layers use a vector, directly or after elementwise operations."""
    waiting, has_dense = [tensor], False
    while waiting:
        users = [op for op in waiting.pop().consumers() if op in walk.path_ops and op.type not in SHAPES]
        if not users:
            return False  # the network's output
        for op in users:
            if op.type == "MatMul" and op.inputs[0].op in walk.input_dependent:
                has_dense = True
            elif op.type in ELEMENTWISE:
                waiting.append(op.outputs[0])
            else:
                return False
    return has_dense


def _image(walk: Walk, op: Any, value: Value, after: list[int]) -> list[Value] | None:
    """Convert the reshape of a vector to an image of shape ``after``."""
    if value.image is None and _is_channels_first(walk, op):
        (output,) = walk.add(op, "Reshape", [value], {"shape": after[1:]})
        output.node.shapes = [after[1:]]
        return [replace(output, layout="NCHW")]
    height, width, channels = after[1:]
    if value.image is not None:
        if list(value.image) != after[1:]:
            return None
    elif height * width > 1:
        node = value.dense
        if node is None or not walk.has_single_consumer(op.inputs[0]):
            (output,) = walk.add(op, "Reshape", [value], {"shape": after[1:]})
            output.node.shapes = [after[1:]]
            (output,) = walk.add(op, "Transpose", [output], {"perm": [0, 3, 1, 2]})
            output.node.shapes = [[channels, height, width]]
            return [replace(output, layout="NHWC")]
        size = (height, width, channels)
        weight = node.weights["weight"]
        node.weights["weight"] = replace(weight, arguments=(weight.arguments[0], size))
        if "bias" in node.weights:
            node.weights["bias"] = replace(node.weights["bias"], arguments=(size,))
    (output,) = walk.add(op, "Reshape", [value], {"shape": [channels, height, width]})
    output.node.shapes = [[channels, height, width]]
    return [replace(output, layout="NHWC")]


def _is_channels_first(walk: Walk, op: Any) -> bool:
    """Return whether operations use an image and every one transposes it from NCHW to NHWC."""
    users = [user for user in op.outputs[0].consumers() if user in walk.path_ops]
    orders = [constant(user.inputs[1]) if user.type == "Transpose" else None for user in users]
    return bool(orders) and all(order is not None and order.tolist() == [0, 2, 3, 1] for order in orders)
