"""Convolutions with which oneDNN fails in TensorFlow 2.21 (docs/upstream-faults.md), computed otherwise.

The gradient of a convolution of one pixel with a larger stride damages the heap: it is the product of the pixels that it reads. A
convolution of one channel with a stride of 1 down and a larger one across reads memory beyond its image: it gets a second
channel, of zeros. So does a transposed convolution into one channel, whose gradient is such a convolution.
"""

from __future__ import annotations

from typing import Any

import tensorflow

from multiseg_tensorflow.lowering import patches
from multiseg_tensorflow.lowering.convolutions import is_plain, sides

tf = tensorflow.compat.v1


def applies(op: Any, device: str) -> bool:
    """Return whether an operation is such a convolution."""
    if not is_plain(op):
        return False
    return _reads_single_pixels(op) or (_reads_beyond(op) and not patches.applies(op, device))


def _reads_single_pixels(op: Any) -> bool:
    """Return whether the kernel is one pixel and the stride is larger; SAME and VALID are then the same."""
    return op.type == "Conv2D" and bool(sides(op)[0].shape.as_list()[:2] == [1, 1] and max(op.get_attr("strides")) > 1)


def _reads_beyond(op: Any) -> bool:
    _, down, across, _ = op.get_attr("strides")
    return bool(sides(op)[0].shape.as_list()[2] == 1 and down == 1 < across)


def add(op: Any, arguments: list[Any], device: str) -> None:
    """Add the operations of a convolution of (image, kernel), or of its transposition of (size, kernel, grid)."""
    strides, padding = op.get_attr("strides"), op.get_attr("padding").decode()
    if op.type != "Conv2D":
        size, kernel, grid = arguments
        size, kernel = tf.concat([size[:3], [2]], 0), tf.concat([kernel, tf.zeros_like(kernel)], 2)
        image = tf.nn.conv2d_transpose(grid, kernel, size, strides, padding)
        tf.identity(image[..., :1], name="output")
        return
    if _reads_single_pixels(op):
        _, rows, columns, _ = strides
        patches.convolution(arguments[1], arguments[0][:, ::rows, ::columns], True, device)
        return
    # not by Pad: TensorFlow computes it together with the convolution, which fails for channels
    image, kernel = (
        tf.concat([argument, tf.zeros_like(argument)], axis)
        for argument, axis in zip(arguments, (3, 2))  # noqa: B905 - worker code runs on Python 3.9
    )
    tf.nn.conv2d(image, kernel, strides, padding, name="output")
