"""Replace convolutions whose kernel equals their stride by one matrix product over all patches.

Without padding, such a convolution divides the image into patches that do not overlap, and its output is the product of
the patches of the whole batch with the kernel; a transposed convolution is the inverse mapping. Convolution libraries are
slow for the large kernels where this matters. The kernel layouts, HWIO and transposed HWOI, reshape to matrices without a
copy.
"""

from __future__ import annotations

from typing import Any

import tensorflow

from multiseg_tensorflow.lowering import products
from multiseg_tensorflow.lowering.convolutions import is_plain, sides

tf = tensorflow.compat.v1

# All such convolutions are lowered: none of 28 layers (1x1 to 16x16, 1 to 1024 channels, batches of 1, 4 and 32; forward and
# backward, one thread of an AMD EPYC, processor time, measured alternately) became slower. Small kernels and batches took 10%
# less time, 16x16 in batches of 32 took 1/2 to 1/14 of the time. In NHWC, patches are rows of whole pixels, which copy fast.


def applies(op: Any, device: str) -> bool:
    """Return whether an operation is a convolution whose kernel equals its stride, without padding."""
    return (
        is_plain(op)
        and op.get_attr("strides") == [1, *sides(op)[0].shape.as_list()[:2], 1]
        and (op.get_attr("padding") == b"VALID" or (op.get_attr("padding") == b"SAME" and _covered(op)))
    )


def _covered(op: Any) -> bool:
    """Return whether the patches are known to cover the image exactly: no remainder, and SAME adds no padding."""
    kernel, image, grid = (tensor.shape.as_list() for tensor in sides(op))
    return all(size and image[axis] == size * kernel[axis - 1] for axis, size in enumerate(grid) if axis in (1, 2))


def add(op: Any, arguments: list[Any], device: str) -> None:
    """Add the operations of the product."""
    if op.type == "Conv2D":
        convolution(arguments[1], arguments[0], _covered(op))
    else:
        size = None if _covered(op) else _lengths(op.outputs[0].shape, arguments[0])
        _transposed_convolution(arguments[1], arguments[2], size)


def _lengths(shape: Any, dynamic_shape: Any) -> list[Any]:
    """Return the height and width of an image: numbers if the graph knows them, else elements of ``dynamic_shape``."""
    return [
        dynamic_shape[axis] if length is None else length
        for axis, length in enumerate(shape.as_list())
        if axis in (1, 2)
    ]


def convolution(kernel: Any, image: Any, covered: bool) -> None:
    """Add the operations of a convolution as a product; ``covered`` states that the patches cover the image exactly."""
    height, width, inputs, outputs = kernel.shape.as_list()
    image_height, image_width = _lengths(image.shape, tf.shape(image))
    rows, columns = image_height // height, image_width // width
    if not covered:  # a convolution ignores the remainder after the last complete window
        image = image[:, : rows * height, : columns * width]
    patches = tf.reshape(image, [-1, rows, height, columns, width * inputs])
    patches = tf.transpose(patches, [0, 1, 3, 2, 4])
    patches = tf.reshape(patches, [-1, height * width * inputs])
    kernel = tf.reshape(kernel, [-1, outputs])
    tf.reshape(products.product(patches, kernel), [-1, rows, columns, outputs], name="output")


def _transposed_convolution(kernel: Any, grid: Any, size: list[Any] | None) -> None:
    """Add the operations of a transposed convolution as a product; ``size`` is that of the image unless patches cover it."""
    height, width, outputs, inputs = kernel.shape.as_list()
    rows, columns = _lengths(grid.shape, tf.shape(grid))
    pixels, kernel = tf.reshape(grid, [-1, inputs]), tf.reshape(kernel, [-1, inputs])
    patches = tf.reshape(products.transposed_product(pixels, kernel), [-1, rows, columns, height, width * outputs])
    image = tf.transpose(patches, [0, 1, 3, 2, 4])
    if size is None:
        tf.reshape(image, [-1, rows * height, columns * width, outputs], name="output")
    else:
        image = tf.reshape(image, [-1, rows * height, columns * width, outputs])
        remainder = [[0, 0], [0, size[0] - rows * height], [0, size[1] - columns * width], [0, 0]]
        tf.pad(image, remainder, name="output")
