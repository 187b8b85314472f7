"""What the rules for convolutions read from the operations of a graph."""

from __future__ import annotations

from typing import Any

KINDS = ("Conv2D", "Conv2DBackpropInput")


def sides(op: Any) -> tuple[Any, Any, Any]:
    """Return the kernel (h, w, image channels, grid channels), the image, and the grid, which has one pixel for each patch."""
    if op.type == "Conv2D":
        return op.inputs[1], op.inputs[0], op.outputs[0]
    return op.inputs[1], op.outputs[0], op.inputs[2]


def is_plain(op: Any) -> bool:
    """Return whether an operation is a convolution, or its transposition, in NHWC without dilation and groups."""
    if op.type not in KINDS:
        return False
    kernel, image, grid = sides(op)
    if not kernel.shape.is_fully_defined() or image.shape.rank != 4 or grid.shape.rank != 4:
        return False
    return bool(
        op.get_attr("data_format") == b"NHWC"
        and op.get_attr("dilations") == [1, 1, 1, 1]
        and op.get_attr("padding") in (b"VALID", b"SAME")
        # otherwise the convolution is grouped
        and [image.shape.as_list()[3], grid.shape.as_list()[3]] == kernel.shape.as_list()[2:]
    )
