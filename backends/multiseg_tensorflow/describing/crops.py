"""Slices to the size of another value, which are Crops: unlike a Slice, a Crop changes with the size of the image.

In a graph for images of one size, begin and end of a slice are numbers, whatever they were calculated from. A slice is described
as a Crop if its output has the size of a value that it is joined with, or of the image; it stays one if it is one to the same
value, from the same place, in the graph for images of another size.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from multiseg_tensorflow.describing.walk import Node, Value, Walk, neutral_shape
from multiseg_tensorflow.tensors import constant

JOINING = ("ConcatV2", "Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Div", "Maximum")


def other_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of other images: one row more and one column less than multiples of 64.

    There, poolings add or leave out as many rows or columns as they can at strides of up to 64, which shows whether a slice is
    one of the centre, and whether values have the same size at all sizes.
    """
    return (height // 64 + 1) * 64 + 1, (width // 64 + 2) * 64 - 1


def reference(walk: Walk, op: Any, value: Value) -> Value | None:
    """Return the value to whose height and width a slice of ``value`` may be a crop; None if there is none."""
    output = op.outputs[0]
    channels, *size = neutral_shape(output, value.layout)
    if value.layout not in ("NHWC", "NCHW") or channels != neutral_shape(op.inputs[0], value.layout)[0]:
        return None
    places = (1, 2) if value.layout == "NHWC" else (2, 3)
    ends, masked = constant(op.inputs[2]), op.get_attr("end_mask") if op.type == "StridedSlice" else 0
    if ends is None or any(place >= len(ends) or ends[place] == -1 or masked >> place & 1 for place in places):
        return None  # it keeps all rows, or columns, at any size
    joins = [user for user in output.consumers() if user.type in JOINING and user in walk.path_ops]
    for tensor in (*(tensor for join in joins for tensor in join.inputs), walk.sources[0].tensor):
        like = walk.value(tensor)
        if like is None or like.layout not in ("NHWC", "NCHW") or like.node is value.node:
            continue
        if neutral_shape(tensor, like.layout)[1:] == size:
            return like
    return None


def references(nodes: Iterable[Node]) -> dict[str, Any]:
    """Return second input and offset of every Crop, by the names of tensors, which are the same in the graphs of one file."""
    return {
        node.tensor.name: (node.inputs[1].node.tensor.name, node.inputs[1].index, node.parameters["offset"])
        for node in nodes
        if node.type == "Crop"
    }


def fix(nodes: Iterable[Node], tensors: Container[str]) -> None:
    """Let the Crops whose tensors are named be Slices of numbers, or an Identity if they cut nothing off."""
    for node in nodes:
        if node.type == "Crop" and node.tensor.name in tensors:
            before, after = neutral_shape(node.op.inputs[0], node.inputs[0].layout), node.shapes[0]
            axes = [axis for axis, (n, kept) in enumerate(zip(before, after), 1) if n != kept]  # noqa: B905
            offset = node.parameters["offset"]
            starts = [offset[axis - 2] if len(offset) > 1 else 0 for axis in axes]
            ends = [start + after[axis - 1] for start, axis in zip(starts, axes)]  # noqa: B905
            node.type, node.inputs = "Slice" if axes else "Identity", node.inputs[:1]
            node.parameters = {"axes": axes, "starts": starts, "ends": ends} if axes else {}
