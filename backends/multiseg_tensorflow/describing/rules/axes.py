"""Convert operations that concatenate, split, slice, pad, resize, permute or reduce axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from multiseg_tensorflow.describing import crops
from multiseg_tensorflow.describing.rules.convolution import merge_groups
from multiseg_tensorflow.describing.walk import NHWC_AXES, Rule, Value, Walk, neutral_axis, neutral_shape
from multiseg_tensorflow.tensors import constant, number


def reduce(walk: Walk, op: Any) -> list[Value] | None:
    """Convert Mean, Max and Sum over axes: to a global pooling where it is one."""
    value, axes = walk.value(op.inputs[0]), constant(op.inputs[1])
    if value is None or axes is None or value.layout == "ROWS" or op.inputs[1].op in walk.input_dependent:
        return None
    rank = op.inputs[0].shape.rank
    neutral = sorted(neutral_axis(int(axis), rank, value.layout) for axis in np.atleast_1d(axes))
    keeps, image = bool(op.get_attr("keep_dims")), value.layout is not None
    if 0 in neutral:
        return None
    if keeps and image and neutral == [2, 3] and op.type in ("Mean", "Max"):
        return walk.add(op, {"Mean": "GlobalAveragePool", "Max": "GlobalMaxPool"}[op.type], [value])
    if op.type == "Max":
        return None
    outputs = walk.add(op, f"Reduce{op.type}", [value], {"axes": neutral, "keepdims": int(keeps)})
    if keeps:
        return outputs
    if value.layout == "NHWC" and len(neutral) == 1 and neutral != [1]:  # C is the last of two axes, which it precedes
        outputs[0].node.type = f"tf.{op.type}"
    return [replace(output, layout=None) for output in outputs]  # no image layout


def concat(walk: Walk, op: Any) -> list[Value] | None:
    """Convert ConcatV2; grouped convolutions that are concatenated become one convolution."""
    *tensors, axis = op.inputs
    values = [value for value in map(walk.value, tensors) if value is not None]
    if len(values) != len(tensors) or constant(axis) is None or len({value.layout for value in values}) > 1:
        return None
    if any(value.image for value in values) or values[0].layout == "ROWS":
        return None
    neutral = neutral_axis(int(constant(axis)), tensors[0].shape.rank, values[0].layout)
    merged = merge_groups(walk, op, values) if neutral == 1 else None
    return merged or walk.add(op, "Concat", values, {"axis": neutral})


def split(walk: Walk, op: Any) -> list[Value] | None:
    """Convert Split and SplitV."""
    axis, tensor = (op.inputs[0], op.inputs[1]) if op.type == "Split" else (op.inputs[2], op.inputs[0])
    value = walk.value(tensor)
    if value is None or constant(axis) is None or value.layout == "ROWS" or value.image is not None:
        return None
    place = int(constant(axis)) % tensor.shape.rank
    sizes = [output.shape.as_list()[place] for output in op.outputs]
    neutral = neutral_axis(place, tensor.shape.rank, value.layout)
    return walk.add(op, "Split", [value], {"axis": neutral, "split": sizes}, count=len(op.outputs))


def slice(walk: Walk, op: Any) -> list[Value] | None:
    """Convert Slice and StridedSlice with a step of 1; one that keeps everything and is no crop becomes no layer."""
    value, rank = walk.value(op.inputs[0]), op.inputs[0].shape.rank
    sizes_out, sizes_in = op.outputs[0].shape.as_list(), op.inputs[0].shape.as_list()
    begin = constant(op.inputs[1])
    if value is None or begin is None or len(sizes_out) != rank or value.layout == "ROWS" or value.image is not None:
        return None
    masked = 0
    if op.type == "StridedSlice":
        steps = constant(op.inputs[3])
        others = any(op.get_attr(key) for key in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask"))
        if steps is None or any(step != 1 for step in steps) or others:
            return None
        masked = op.get_attr("begin_mask")
    axes, starts, ends = [], [], []
    for axis in range(1, rank):
        start = 0 if axis >= len(begin) or masked >> axis & 1 else int(begin[axis])
        start += sizes_in[axis] if start < 0 else 0
        if sizes_out[axis] != sizes_in[axis]:
            axes.append(neutral_axis(axis, rank, value.layout))
            starts.append(start)
            ends.append(start + sizes_out[axis])
    order = np.argsort(axes)
    unsorted = {"axes": axes, "starts": starts, "ends": ends}
    parameters = {key: [numbers[i] for i in order] for key, numbers in unsorted.items()}
    like = crops.reference(walk, op, value)
    if like is not None:
        top, left = (dict(zip(axes, starts)).get(axis, 0) for axis in (2, 3))  # noqa: B905 - worker code runs on Python 3.9
        return walk.add(op, "Crop", [value, like], {"axis": 2, "offset": [top, left] if top or left else [0]})
    return walk.add(op, "Slice", [value], parameters) if axes else [value]


def pad(walk: Walk, op: Any) -> list[Value] | None:
    """Convert Pad, PadV2 and MirrorPad of the spatial axes; None for padded batch or channels and symmetric padding."""
    value, pads = walk.value(op.inputs[0]), constant(op.inputs[1])
    if value is None or pads is None or value.layout not in ("NHWC", "NCHW"):
        return None
    pads = pads.tolist()
    spatial, others = (pads[1:3], [pads[0], pads[3]]) if value.layout == "NHWC" else (pads[2:4], pads[:2])
    mode = op.get_attr("mode").decode().lower() if op.type == "MirrorPad" else "constant"
    fill_value = constant(op.inputs[2]) if op.type == "PadV2" else 0
    if others != [[0, 0], [0, 0]] or mode == "symmetric" or fill_value is None:
        return None
    parameters = {"pads": [spatial[0][0], spatial[1][0], spatial[0][1], spatial[1][1]], "mode": mode}
    return walk.add(op, "Pad", [value], {**parameters, "value": number(fill_value)})


def resize(mode: str) -> Rule:
    """Return the rule of a resizing operation with the interpolation ``mode``."""

    def rule(walk: Walk, op: Any) -> list[Value] | None:
        value = walk.value(op.inputs[0])
        if value is None or value.layout != "NHWC":
            return None
        corners, half = op.get_attr("align_corners"), op.get_attr("half_pixel_centers")
        coordinates = "align_corners" if corners else "half_pixel" if half else "asymmetric"
        sizes = op.outputs[0].shape.as_list()[1:3]
        return walk.add(op, "Resize", [value], {"mode": mode, "sizes": sizes, "coordinates": coordinates})

    return rule


def transpose(walk: Walk, op: Any) -> list[Value] | None:
    """Convert Transpose; a change between NHWC and NCHW only changes the layout of the value and becomes no layer."""
    value, order = walk.value(op.inputs[0]), constant(op.inputs[1])
    if value is None or order is None or value.image is not None:
        return None
    order = order.tolist()
    node = value.node
    reduces = node.type in ("tf.Mean", "tf.Sum") and node.op.type in ("Mean", "Sum") and "keepdims" in node.parameters
    if reduces and order == [0, 2, 1] and node.tensor is op.inputs[0] and walk.has_single_consumer(node.tensor):
        node.type, node.tensor, node.tensors = f"Reduce{node.op.type}", op.outputs[0], [op.outputs[0]]
        node.shapes = [neutral_shape(op.outputs[0], None)]
        return [value]
    if (value.layout, order) in (("NHWC", [0, 3, 1, 2]), ("NCHW", [0, 2, 3, 1])):
        return [replace(value, layout="NCHW" if value.layout == "NHWC" else "NHWC")]
    if value.layout not in ("NHWC", "NCHW") or order[0] != 0:
        return None
    # the permutation of the neutral axes; the output keeps the layout of the input
    place = (
        {neutral: axis for axis, neutral in NHWC_AXES.items()} if value.layout == "NHWC" else dict(enumerate(range(4)))
    )
    perm = [neutral_axis(order[place[axis]], 4, value.layout) for axis in range(4)]
    return walk.add(op, "Transpose", [value], {"perm": perm})
