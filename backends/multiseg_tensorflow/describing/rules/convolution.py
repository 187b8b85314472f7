"""Convolutions, transposed convolutions, and pooling."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from multiseg_tensorflow.describing.walk import Rule, Value, Walk, Weighted, neutral_shape
from multiseg_tensorflow.tensors import constant
from multiseg_tensorflow.weights import depthwise as depthwise_weight
from multiseg_tensorflow.weights import plain as plain_weight


def convolution(walk: Walk, op: Any) -> list[Value] | None:
    value, kernel = walk.value(op.inputs[0]), op.inputs[1]
    strides, dilations = _spatial(op, "strides"), _spatial(op, "dilations")
    split = kernel.op if kernel.op.type == "Split" else None
    weight = walk.weight(split.inputs[1] if split is not None else kernel)
    if value is None or not fits(value, op) or weight is None or strides is None or dilations is None:
        return None
    height, width, inputs, outputs = kernel.shape.as_list()
    channels = op.inputs[0].shape.as_list()[3 if value.layout == "NHWC" else 1]
    per_channel = op.type == "DepthwiseConv2dNative"
    parameters = {
        "num_output": channels * outputs if per_channel else outputs,
        "kernel_shape": [height, width],
        "strides": strides,
        **(_padding(op) or {}),
        "dilations": dilations,
        "group": channels if per_channel else channels // inputs,
        "bias_term": False,
    }
    weighted = Weighted(weight[0], depthwise_weight if per_channel else plain_weight)
    return walk.add(op, "Conv", [value], parameters, weights={"weight": weighted})


def transposed_convolution(walk: Walk, op: Any) -> list[Value] | None:
    value, kernel = walk.value(op.inputs[2]), op.inputs[1]
    strides, weight = _spatial(op, "strides"), walk.weight(kernel)
    if value is None or not fits(value, op) or weight is None or strides is None or _spatial(op, "dilations") != [1, 1]:
        return None
    shape = kernel.shape.as_list()
    size, made = (neutral_shape(tensor, value.layout)[1:] for tensor in (op.inputs[2], op.outputs[0]))
    before, after, more = [], [], []
    for n, out, k, s in zip(size, made, shape, strides):  # noqa: B905 - worker code runs on Python 3.9
        # the padding of the convolution that this one turns round
        total = max((n - 1) * s + k - out, 0) if op.get_attr("padding") == b"SAME" else 0
        before.append(total // 2)
        after.append(total - total // 2)
        more.append(out - ((n - 1) * s + k - total))
    if op.get_attr("padding") == b"EXPLICIT":
        pads = (_padding(op) or {})["pads"]
        before, after = pads[:2], pads[2:]
        more = [out - ((n - 1) * s + k - b - a)
                for n, out, k, s, b, a in zip(size, made, shape, strides, before, after)]  # noqa: B905  # fmt: skip
    parameters = {
        "num_output": shape[2],
        "kernel_shape": shape[:2],
        "strides": strides,
        "pads": before + after,
        "dilations": [1, 1],
        "group": 1,
        "bias_term": False,
        **({"output_padding": more} if any(more) else {}),
    }
    return walk.add(op, "ConvTranspose", [value], parameters, weights={"weight": Weighted(weight[0])})


def _spatial(op: Any, key: str) -> list[int] | None:
    """Height's and width's part of an attribute with one number for each axis; None where batch or channels have another."""
    values = list(op.get_attr(key))
    nhwc = op.get_attr("data_format") == b"NHWC"
    others = values[:1] + (values[3:] if nhwc else values[1:2])
    return (values[1:3] if nhwc else values[2:4]) if others == [1, 1] else None


def _padding(op: Any) -> dict[str, Any] | None:
    padding = op.get_attr("padding").decode()
    if padding == "SAME":
        return {"auto_pad": "SAME_UPPER"}
    if padding == "VALID":
        return {"pads": [0, 0, 0, 0]}
    pads = list(op.get_attr("explicit_paddings"))
    top, bottom, left, right = pads[2:6] if op.get_attr("data_format") == b"NHWC" else pads[4:8]
    return {"pads": [top, left, bottom, right]}


def fits(value: Value | None, op: Any) -> bool:
    return value is not None and value.layout == op.get_attr("data_format").decode()


def groups(walk: Walk, op: Any, values: list[Value]) -> list[Value] | None:
    """A convolution in groups as one, where images and one kernel were split and the results are joined."""
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
    for each in {*nodes, split}:
        walk.nodes.remove(each)
    outputs = first.parameters["num_output"] * len(nodes)
    parameters = {**first.parameters, "num_output": outputs, "group": len(nodes)}
    return walk.add(op, "Conv", split.inputs, parameters, weights=first.weights)


def from_blocks(walk: Walk, op: Any) -> list[Value] | None:
    """A convolution between SpaceToBatchND and BatchToSpaceND is one with holes."""
    value = walk.value(op.inputs[0])
    if value is None or value.node.type != "Conv" or value.node.parameters.get("pads") != [0, 0, 0, 0]:
        return None
    node, spread = value.node, value.node.inputs[0].node
    if spread.op.type != "SpaceToBatchND":
        return None
    block, pads, crops = constant(spread.op.inputs[1]), constant(spread.op.inputs[2]), constant(op.inputs[2])
    if block is None or pads is None or crops is None or len(block) != 2 or node.parameters["strides"] != [1, 1]:
        return None
    pads = (pads - crops).tolist()
    walk.nodes.remove(spread)
    node.inputs = list(spread.inputs)
    node.parameters.update(dilations=block.tolist(), pads=[pads[0][0], pads[1][0], pads[0][1], pads[1][1]])
    node.shapes = [neutral_shape(op.outputs[0], "NHWC")]
    node.tensor = op.outputs[0]
    return [Value(node, 0, "NHWC")]


def pool(type: str) -> Rule:
    def rule(walk: Walk, op: Any) -> list[Value] | None:
        value = walk.value(op.inputs[0])
        kernel, strides = _spatial(op, "ksize"), _spatial(op, "strides")
        if value is None or not fits(value, op) or kernel is None or strides is None:
            return None
        parameters = {"kernel_shape": kernel, "strides": strides, **(_padding(op) or {})}
        if type == "AveragePool":
            parameters["count_include_pad"] = False
        return walk.add(op, type, [value], parameters)

    return rule
