"""Convert convolutions, transposed convolutions, and pooling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from multiseg_tensorflow.describing.walk import Rule, Value, Walk, neutral_shape
from multiseg_tensorflow.tensors import constant
from multiseg_tensorflow.weights import depthwise as depthwise_weight
from multiseg_tensorflow.weights import plain as plain_weight


def convolution(walk: Walk, op: Any) -> list[Value] | None:
    """Convert Conv2D and DepthwiseConv2dNative."""
    value, kernel = walk.value(op.inputs[0]), op.inputs[1]
    strides, dilations = _spatial(op, "strides"), _spatial(op, "dilations")
    split = kernel.op if kernel.op.type == "Split" else None
    per_channel = op.type == "DepthwiseConv2dNative"
    weight = walk.kernel(
        split.inputs[1] if split is not None else kernel, depthwise_weight if per_channel else plain_weight
    )
    if value is None or not has_data_format(value, op) or weight is None or strides is None or dilations is None:
        return None
    height, width, inputs, outputs = kernel.shape.as_list()
    channels = op.inputs[0].shape.as_list()[3 if value.layout == "NHWC" else 1]
    parameters = {
        "num_output": channels * outputs if per_channel else outputs,
        "kernel_shape": [height, width],
        "strides": strides,
        **(_padding(op) or {}),
        "dilations": dilations,
        "group": channels if per_channel else channels // inputs,
        "bias_term": False,
    }
    return walk.add(op, "Conv", [value], parameters, weights={"weight": weight})


def transposed_convolution(walk: Walk, op: Any) -> list[Value] | None:
    """Convert Conv2DBackpropInput, a transposed convolution."""
    value, kernel = walk.value(op.inputs[2]), op.inputs[1]
    strides, weight = _spatial(op, "strides"), walk.kernel(kernel)
    if (
        value is None
        or not has_data_format(value, op)
        or weight is None
        or strides is None
        or _spatial(op, "dilations") != [1, 1]
    ):
        return None
    shape = kernel.shape.as_list()
    size, size_out = (neutral_shape(tensor, value.layout)[1:] for tensor in (op.inputs[2], op.outputs[0]))
    before, after, output_padding = [], [], []
    for n, out, k, s in zip(size, size_out, shape, strides):  # noqa: B905 - worker code runs on Python 3.9
        # the padding of the convolution whose gradient this is
        total = max((n - 1) * s + k - out, 0) if op.get_attr("padding") == b"SAME" else 0
        before.append(total // 2)
        after.append(total - total // 2)
        output_padding.append(out - ((n - 1) * s + k - total))
    if op.get_attr("padding") == b"EXPLICIT":
        pads = (_padding(op) or {})["pads"]
        before, after = pads[:2], pads[2:]
        output_padding = [out - ((n - 1) * s + k - b - a)
                for n, out, k, s, b, a in zip(size, size_out, shape, strides, before, after)]  # noqa: B905  # fmt: skip
    parameters = {
        "num_output": shape[2],
        "kernel_shape": shape[:2],
        "strides": strides,
        "pads": before + after,
        "dilations": [1, 1],
        "group": 1,
        "bias_term": False,
        **({"output_padding": output_padding} if any(output_padding) else {}),
    }
    return walk.add(op, "ConvTranspose", [value], parameters, weights={"weight": weight})


def _spatial(op: Any, key: str) -> list[int] | None:
    """Return the (height, width) part of an attribute with a number for each axis; None unless batch and channels have 1."""
    values = list(op.get_attr(key))
    nhwc = _data_format(op) == "NHWC"
    others = values[:1] + (values[3:] if nhwc else values[1:2])
    return (values[1:3] if nhwc else values[2:4]) if others == [1, 1] else None


def _padding(op: Any) -> dict[str, Any] | None:
    """Return the parameters of the layer that state the operation's padding."""
    padding = op.get_attr("padding").decode()
    if padding == "SAME":
        return {"auto_pad": "SAME_UPPER"}
    if padding == "VALID":
        return {"pads": [0, 0, 0, 0]}
    pads = list(op.get_attr("explicit_paddings"))
    top, bottom, left, right = pads[2:6] if op.get_attr("data_format") == b"NHWC" else pads[4:8]
    return {"pads": [top, left, bottom, right]}


def has_data_format(value: Value | None, op: Any) -> bool:
    """Return whether a value has the data format (NHWC or NCHW) that the operation expects."""
    return value is not None and value.layout == _data_format(op)


def _data_format(op: Any) -> str:
    """Return NHWC or NCHW; NHWC for operations that have no other."""
    return op.get_attr("data_format").decode() if "data_format" in op.node_def.attr else "NHWC"


def merge_groups(walk: Walk, op: Any, values: list[Value]) -> list[Value] | None:
    """Convert the concatenation of convolutions of a split image with a split kernel to one convolution with groups."""
    nodes = [value.node for value in values]
    first = nodes[0]
    if first.type != "Conv" or len(nodes) < 2 or first.parameters["group"] != 1:
        return None
    split, kernel = first.inputs[0].node, first.op.inputs[1].op
    if split.type != "Split" or split.count != len(nodes) or kernel.type != "Split":
        return None
    for index, node in enumerate(nodes):
        if (
            node.type != "Conv" or node.inputs != [replace(first.inputs[0], node=split, index=index)]
            or node.parameters != first.parameters or node.op.inputs[1] is not kernel.outputs[index]
            or node.parameters["bias_term"] or constant(kernel.inputs[0]) != 3
        ):  # fmt: skip
            return None
    for node in {*nodes, split}:
        walk.nodes.remove(node)
    outputs = first.parameters["num_output"] * len(nodes)
    parameters = {**first.parameters, "num_output": outputs, "group": len(nodes)}
    return walk.add(op, "Conv", split.inputs, parameters, weights=first.weights)


def from_blocks(walk: Walk, op: Any) -> list[Value] | None:
    """Convert a convolution between SpaceToBatchND and BatchToSpaceND to a dilated convolution."""
    value = walk.value(op.inputs[0])
    if value is None or value.node.type != "Conv" or value.node.parameters.get("pads") != [0, 0, 0, 0]:
        return None
    node, to_batch = value.node, value.node.inputs[0].node
    if to_batch.op.type != "SpaceToBatchND":
        return None
    block, pads, crops = constant(to_batch.op.inputs[1]), constant(to_batch.op.inputs[2]), constant(op.inputs[2])
    if block is None or pads is None or crops is None or len(block) != 2 or node.parameters["strides"] != [1, 1]:
        return None
    pads = (pads - crops).tolist()
    walk.nodes.remove(to_batch)
    node.inputs = list(to_batch.inputs)
    node.parameters.update(dilations=block.tolist(), pads=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]])
    node.shapes = [neutral_shape(op.outputs[0], "NHWC")]
    node.tensor = op.outputs[0]
    return [Value(node, 0, "NHWC")]


def pool(type: str) -> Rule:
    """Return the rule of a pooling operation that becomes a layer of ``type``."""

    def rule(walk: Walk, op: Any) -> list[Value] | None:
        value = walk.value(op.inputs[0])
        kernel, strides = _spatial(op, "ksize"), _spatial(op, "strides")
        if value is None or not has_data_format(value, op) or kernel is None or strides is None:
            return None
        parameters = {"kernel_shape": kernel, "strides": strides, **(_padding(op) or {})}
        if type == "AveragePool":
            parameters["count_include_pad"] = False
        return walk.add(op, type, [value], parameters)

    return rule
