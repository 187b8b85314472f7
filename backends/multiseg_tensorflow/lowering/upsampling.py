"""Transposed convolutions with large kernels, as the upsampling of FCN-8s and FCN-32s, as one matrix product.

A transposed convolution with stride s writes blocks of s x s pixels. With a kernel of r strides, a block depends on a window of
r x r pixels of the grid: it is the product of these pixels with the kernel's r x r blocks in reverse order. So is
the gradient of the kernel; that of the grid is the convolution, which oneDNN computes faster.
"""

from __future__ import annotations

from typing import Any

import tensorflow

from multiseg_tensorflow.lowering.convolutions import is_plain, sides

tf = tensorflow.compat.v1

GRADIENT = "MultisegUpsampling"
# When the product is faster. Speedup of forward and backward, of layers with a kernel of two strides (`python
# benchmarks/lowering.py tensorflow`): stride 2 0.9 to 1.2, stride 4 1.0 to 2.1, stride 8 and more 1.2 to 7.8 for up to 40
# channels; for 64 channels 1.1 to 1.4, but 0.8 to 1.8 in prediction.
SMALLEST_STRIDE = 8
MOST_CHANNELS = 40


def applies(op: Any, device: str) -> bool:
    """Return whether the product computes an operation, and takes less time."""
    if device != "cpu" or op.type != "Conv2DBackpropInput" or not is_plain(op):
        return False
    kernel, image, grid = (tensor.shape.as_list() for tensor in sides(op))
    strides = op.get_attr("strides")[1:3]
    if None in image[1:3] + grid[1:3] or kernel[3] > MOST_CHANNELS:
        return False
    return all(
        length > stride >= SMALLEST_STRIDE and length % stride == 0 and first + size <= (pixels - 1) * stride + length
        for length, stride, size, pixels, first in zip(kernel, strides, image[1:], grid[1:], _start(op))  # noqa: B905 - worker code runs on Python 3.9
    )


def _start(op: Any) -> list[int]:
    """Return the first row and column of the blocks that belong to the image: the padding above and to the left."""
    kernel, image, grid = (tensor.shape.as_list() for tensor in sides(op))
    if op.get_attr("padding") == b"VALID":
        return [0, 0]
    lengths = zip(kernel, op.get_attr("strides")[1:3], image[1:], grid[1:])  # noqa: B905
    return [max((pixels - 1) * stride + length - size, 0) // 2 for length, stride, size, pixels in lengths]


def add(op: Any, arguments: list[Any], device: str) -> None:
    """Add the operations of a transposed convolution of (size, kernel, grid)."""
    _, kernel, grid = arguments
    height, width, outputs, inputs = kernel.shape.as_list()
    _, down, across, _ = op.get_attr("strides")
    rh, rw = height // down, width // across
    windows = _windows(grid, rh, rw)
    rows, columns = windows.shape.as_list()[1:3]
    parts = tf.reverse(tf.reshape(kernel, [rh, down, rw, across, outputs, inputs]), [0, 2])
    parts = tf.reshape(tf.transpose(parts, [0, 2, 5, 1, 3, 4]), [rh * rw * inputs, down * across * outputs])
    blocks = tf.matmul(tf.reshape(windows, [-1, rh * rw * inputs]), parts)
    blocks = tf.transpose(tf.reshape(blocks, [-1, rows, columns, down, across * outputs]), [0, 1, 3, 2, 4])
    image = tf.reshape(blocks, [-1, rows * down, columns * across, outputs])
    (top, left), size = _start(op), op.outputs[0].shape.as_list()
    image = image[:, top : top + size[1], left : left + size[2]]
    with tf.get_default_graph().gradient_override_map({"IdentityN": GRADIENT}):
        made = tf.identity_n([image, kernel, grid], name="output")[0].op
    for name in ("strides", "padding"):
        made._set_attr(f"_{name}", op.node_def.attr[name])
    made._set_attr("_start", tf.AttrValue(list=tf.AttrValue.ListValue(i=[top, left])))


def _windows(grid: Any, rh: int, rw: int) -> Any:
    """Return the windows (N, h + rh - 1, w + rw - 1, rh * rw * C) of a grid (N, h, w, C), with zeros around it."""
    rows, columns = (pixels + more - 1 for pixels, more in zip(grid.shape.as_list()[1:], (rh, rw)))  # noqa: B905
    padded = tf.pad(grid, [[0, 0], [rh - 1, rh - 1], [rw - 1, rw - 1], [0, 0]])
    return tf.concat([padded[:, i : i + rows, j : j + columns] for i in range(rh) for j in range(rw)], 3)


def _gradient(op: Any, gradient: Any, *_: Any) -> tuple[Any, Any, Any]:
    """Return the gradients of the transposed convolution."""
    kernel = op.inputs[1]
    strides, padding = op.get_attr("_strides"), op.get_attr("_padding").decode()
    return None, _kernel_gradient(op, gradient), tf.nn.conv2d(gradient, kernel, strides, padding)


def _kernel_gradient(op: Any, gradient: Any) -> Any:
    """Return the product of the windows with the blocks of the gradient, in the shape of the kernel."""
    _, kernel, grid = op.inputs
    height, width, outputs, inputs = kernel.shape.as_list()
    _, down, across, _ = op.get_attr("_strides")
    rh, rw = height // down, width // across
    windows = _windows(grid, rh, rw)
    rows, columns = windows.shape.as_list()[1:3]
    (top, left), size = op.get_attr("_start"), op.outputs[0].shape.as_list()
    around = [[0, 0], [top, rows * down - top - size[1]], [left, columns * across - left - size[2]], [0, 0]]
    blocks = tf.reshape(tf.pad(gradient, around), [-1, rows, down, columns, across * outputs])
    blocks = tf.reshape(tf.transpose(blocks, [0, 1, 3, 2, 4]), [-1, down * across * outputs])
    parts = tf.matmul(tf.reshape(windows, [-1, rh * rw * inputs]), blocks, transpose_a=True)
    parts = tf.transpose(tf.reshape(parts, [rh, rw, inputs, down, across, outputs]), [0, 3, 1, 4, 5, 2])
    return tf.reshape(tf.reverse(parts, [0, 2]), kernel.shape)


tf.RegisterGradient(GRADIENT)(_gradient)
