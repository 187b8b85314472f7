"""Convert max pooling with the indices of its maxima, and unpooling to these indices.

TensorFlow's index counts over rows, columns and channels; the vocabulary's over the rows and columns of one channel. The rules
recognise the operations that multiseg exports (the functions max_pool_with_indices and max_unpool); others keep their own type.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from multiseg_tensorflow.describing.rules.convolution import pool as max_pool
from multiseg_tensorflow.describing.walk import Value, Walk
from multiseg_tensorflow.tensors import constant


def pool(walk: Walk, op: Any) -> list[Value] | None:
    """Convert MaxPoolWithArgmax whose indices are used as indices in a plane, or not at all."""
    used = [reader for reader in op.outputs[1].consumers() if reader in walk.path_ops]
    if op.get_attr("include_batch_in_index") or not all(_is_plane_index(reader) for reader in used):
        return None
    outputs = max_pool("MaxPool")(walk, op)
    if outputs is None or not used:
        return outputs and outputs * 2
    node = outputs[0].node
    node.parameters["indices"] = True
    node.count = 2
    node.tensors = [op.outputs[0], used[0].outputs[0]]
    node.shapes = node.shapes * 2
    return [outputs[0], Value(node, 1, outputs[0].layout)]


def _is_plane_index(op: Any) -> bool:
    """Return whether an operation divides TensorFlow's index by the number of channels."""
    channels = op.inputs[0].shape.as_list()[3] if op.inputs and op.inputs[0].shape.rank == 4 else None
    divisor = constant(op.inputs[1]) if op.type == "FloorDiv" else None
    return divisor is not None and channels is not None and np.array_equal(divisor, channels)


def plane_index(walk: Walk, op: Any) -> list[Value] | None:
    """Convert the division of TensorFlow's index by the number of channels, which becomes no layer."""
    value = walk.value(op.inputs[0])
    source = op.inputs[0].op
    if value is None or source.type != "MaxPoolWithArgmax" or not value.node.parameters.get("indices"):
        return None
    return [value]


def unpool(walk: Walk, op: Any) -> list[Value] | None:
    """Convert ScatterNd of an image's values to the indices of a max pooling in the planes of their channels."""
    stacked, values = op.inputs[0].op, walk.value(op.inputs[1])
    out = op.outputs[0].shape.as_list() if op.outputs[0].shape.rank == 4 else [None]
    if (
        values is None
        or values.layout != "NHWC"
        or None in out[1:]
        or stacked.type != "Pack"
        or len(stacked.inputs) != 4
    ):
        return None
    image, row, column, channel = (tensor.op for tensor in stacked.inputs)
    if stacked.get_attr("axis") not in (4, -1) or (row.type, column.type) != ("FloorDiv", "FloorMod"):
        return None
    indices = row.inputs[0]
    value = walk.value(indices)
    widths = [constant(each.inputs[1]) for each in (row, column)]
    planes = column.inputs[0] is indices and all(width is not None and int(width) == out[2] for width in widths)
    numbers = _counts(image, indices, 0, None) and _counts(channel, indices, 3, out[3])
    if value is None or value.index != 1 or value.node.type != "MaxPool" or not planes or not numbers:
        return None
    return walk.add(op, "MaxUnpool", [values, value], {"sizes": out[1:3]})


def _counts(op: Any, like: Any, axis: int, size: int | None) -> bool:
    """Return whether an operation gives each element's index along an axis; ``size`` is that of the axis, None for the batch."""
    if op.type != "Mul":
        return False
    ones, value = op.inputs[0], constant(op.inputs[0])  # a constant where the size of the batch is known
    alike = ones.op.type == "OnesLike" and ones.op.inputs[0] is like
    if not alike and (value is None or np.any(value != 1) or list(value.shape) != like.shape.as_list()):
        return False
    numbers = op.inputs[1]
    known = constant(numbers)
    if size is not None:
        return known is not None and np.array_equal(known, np.arange(size))
    if numbers.op.type != "Reshape" or numbers.op.inputs[0].op.type != "Range":
        return False
    shape = constant(numbers.op.inputs[1])
    start, _, step = (constant(tensor) for tensor in numbers.op.inputs[0].op.inputs)
    expected = [-1 if place == axis else 1 for place in range(4)]
    return shape is not None and list(shape) == expected and start == 0 and step == 1
