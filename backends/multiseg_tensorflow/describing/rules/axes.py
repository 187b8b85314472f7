"""What joins, cuts, reorders or reduces axes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from multiseg_tensorflow.describing.rules.convolution import groups
from multiseg_tensorflow.describing.walk import NHWC_AXES, Rule, Value, Walk, neutral_axis
from multiseg_tensorflow.tensors import constant, number


def reduce(walk: Walk, op: Any) -> list[Value] | None:
    value, axes = walk.value(op.inputs[0]), constant(op.inputs[1])
    if value is None or axes is None or value.layout == "ROWS" or op.inputs[1].op in walk.fed:
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
    made = walk.add(op, f"Reduce{op.type}", [value], {"axes": neutral, "keepdims": int(keeps)})
    if keeps:
        return made
    return _rest(made, op, value.layout, neutral)


def _rest(made: list[Value], op: Any, layout: str | None, gone: list[int]) -> list[Value] | None:
    """Values after the axes ``gone`` have left an image: the channels alone, or what stays in neutral order."""
    if layout == "NHWC" and op.outputs[0].shape.rank > 2:
        made[0].node.type = op.type
    return [replace(each, layout=None) for each in made]


def concat(walk: Walk, op: Any) -> list[Value] | None:
    *tensors, axis = op.inputs
    values = [walk.value(tensor) for tensor in tensors]
    found = [value for value in values if value is not None]
    if len(found) != len(tensors) or constant(axis) is None or len({value.layout for value in found}) > 1:
        return None
    if any(value.image for value in found) or found[0].layout == "ROWS":
        return None
    neutral = neutral_axis(int(constant(axis)), tensors[0].shape.rank, found[0].layout)
    return (groups(walk, op, found) if neutral == 1 else None) or walk.add(op, "Concat", found, {"axis": neutral})


def split(walk: Walk, op: Any) -> list[Value] | None:
    axis, tensor = (op.inputs[0], op.inputs[1]) if op.type == "Split" else (op.inputs[2], op.inputs[0])
    value = walk.value(tensor)
    if value is None or constant(axis) is None or value.layout == "ROWS" or value.image is not None:
        return None
    place = int(constant(axis)) % tensor.shape.rank
    sizes = [made.shape.as_list()[place] for made in op.outputs]
    neutral = neutral_axis(place, tensor.shape.rank, value.layout)
    return walk.add(op, "Split", [value], {"axis": neutral, "split": sizes}, count=len(op.outputs))


def slice(walk: Walk, op: Any) -> list[Value] | None:
    value, rank = walk.value(op.inputs[0]), op.inputs[0].shape.rank
    made, whole = op.outputs[0].shape.as_list(), op.inputs[0].shape.as_list()
    begin = constant(op.inputs[1])
    if value is None or begin is None or len(made) != rank or value.layout == "ROWS" or value.image is not None:
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
        start += whole[axis] if start < 0 else 0
        if made[axis] != whole[axis]:
            axes.append(neutral_axis(axis, rank, value.layout))
            starts.append(start)
            ends.append(start + made[axis])
    if not axes:
        return [value]
    order = np.argsort(axes)
    named = {"axes": axes, "starts": starts, "ends": ends}
    parameters = {key: [each[i] for i in order] for key, each in named.items()}
    return walk.add(op, "Slice", [value], parameters)


def pad(walk: Walk, op: Any) -> list[Value] | None:
    value, pads = walk.value(op.inputs[0]), constant(op.inputs[1])
    if value is None or pads is None or value.layout not in ("NHWC", "NCHW"):
        return None
    pads = pads.tolist()
    spatial, others = (pads[1:3], [pads[0], pads[3]]) if value.layout == "NHWC" else (pads[2:4], pads[:2])
    mode = op.get_attr("mode").decode().lower() if op.type == "MirrorPad" else "constant"
    filled = constant(op.inputs[2]) if op.type == "PadV2" else 0
    if others != [[0, 0], [0, 0]] or mode == "symmetric" or filled is None:
        return None
    parameters = {"pads": [spatial[0][0], spatial[1][0], spatial[0][1], spatial[1][1]], "mode": mode}
    return walk.add(op, "Pad", [value], {**parameters, "value": number(filled)})


def resize(mode: str) -> Rule:
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
    value, order = walk.value(op.inputs[0]), constant(op.inputs[1])
    if value is None or order is None or value.image is not None:
        return None
    order = order.tolist()
    if (value.layout, order) in (("NHWC", [0, 3, 1, 2]), ("NCHW", [0, 2, 3, 1])):
        return [replace(value, layout="NCHW" if value.layout == "NHWC" else "NHWC")]
    if value.layout not in ("NHWC", "NCHW") or order[0] != 0:
        return None
    # in neutral order before, and after in the layout as which the result goes on
    place = (
        {neutral: axis for axis, neutral in NHWC_AXES.items()} if value.layout == "NHWC" else dict(enumerate(range(4)))
    )
    perm = [neutral_axis(order[place[axis]], 4, value.layout) for axis in range(4)]
    made = walk.add(op, "Transpose", [value], {"perm": perm})
    return made
