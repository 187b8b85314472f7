"""Operations that TensorFlow 2.21 computes wrongly with oneDNN (docs/upstream-faults.md), computed otherwise.

The gradient of a convolution of one pixel with a larger stride damages the heap: it is the product of the pixels that it reads. A
convolution of one channel with a stride of 1 down and a larger one across reads memory beyond its image: it gets a second
channel, of zeros. So does a transposed convolution into one channel, whose gradient is such a convolution. The maximum of a value
and its multiple is taken for a leaky ReLU, which it is for factors up to 1 only.
"""

from __future__ import annotations

from typing import Any

import tensorflow

from multiseg_tensorflow.lowering import patches
from multiseg_tensorflow.lowering.convolutions import is_plain, sides
from multiseg_tensorflow.tensors import in_control_flow

tf = tensorflow.compat.v1


def applies(op: Any, device: str) -> bool:
    """Return whether an operation is one of these."""
    if op.type == "Maximum":
        return _is_of_multiple(op)
    if not is_plain(op):
        return False
    return _reads_single_pixels(op) or (_reads_beyond(op) and not patches.applies(op, device))


def has_maximum(graph: Any) -> bool:
    """Return whether TensorFlow's optimiser may compute a maximum of the graph wrongly: one that was not replaced.

    In a branch of a condition it fails for each factor.
    """
    operations = (op for op in graph.get_operations() if op.type == "Maximum")
    return any(in_control_flow(op) or _is_of_multiple(op) for op in operations)


def _is_of_multiple(op: Any) -> bool:
    """Return whether one side of a maximum is computed from the other alone, unless it is a product with a constant up to 1."""
    return any(_is_multiple(one.op, other) for one, other in (tuple(op.inputs), tuple(op.inputs)[::-1]))


def _is_multiple(op: Any, value: Any) -> bool:
    """Return whether an operation may be the product of a value and a factor that is not known to be at most 1."""
    if op.type not in ("Mul", "RealDiv", "Div", "Add", "AddV2", "AddN") or value.name not in [
        each.name for each in op.inputs
    ]:
        return False
    factors = [tf.get_static_value(each) for each in op.inputs if each.name != value.name]
    return not (op.type == "Mul" and all(factor is not None and (factor <= 1).all() for factor in factors))


def _reads_single_pixels(op: Any) -> bool:
    """Return whether the kernel is one pixel and the stride is larger; SAME and VALID are then the same."""
    return op.type == "Conv2D" and bool(sides(op)[0].shape.as_list()[:2] == [1, 1] and max(op.get_attr("strides")) > 1)


def _reads_beyond(op: Any) -> bool:
    _, down, across, _ = op.get_attr("strides")
    return bool(sides(op)[0].shape.as_list()[2] == 1 and down == 1 < across)


def add(op: Any, arguments: list[Any], device: str) -> None:
    """Add the operations of a convolution of (image, kernel), of its transposition of (size, kernel, grid), or of a maximum."""
    if op.type == "Maximum":
        tf.negative(tf.minimum(-arguments[0], -arguments[1]), name="output")
        return
    strides, padding = op.get_attr("strides"), op.get_attr("padding").decode()
    if op.type != "Conv2D":
        size, kernel, grid = arguments
        size, kernel = tf.concat([size[:3], [2]], 0), tf.concat([kernel, tf.zeros_like(kernel)], 2)
        image = tf.nn.conv2d_transpose(grid, kernel, size, strides, padding)
        tf.identity(image[..., :1], name="output")
        return
    if _reads_single_pixels(op):
        _, rows, columns, _ = strides
        patches.convolution(arguments[1], arguments[0][:, ::rows, ::columns], True)
        return
    # not by Pad: TensorFlow computes it together with the convolution, which fails for channels
    image, kernel = (
        tf.concat([argument, tf.zeros_like(argument)], axis)
        for argument, axis in zip(arguments, (3, 2))  # noqa: B905 - worker code runs on Python 3.9
    )
    tf.nn.conv2d(image, kernel, strides, padding, name="output")
