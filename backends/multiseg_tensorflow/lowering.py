"""Replace convolutions whose kernel equals their stride by one matrix product over all patches.

Without padding, such a convolution divides the image into patches that do not overlap, and its output is the product of
the patches of the whole batch with the kernel; a transposed convolution is the inverse mapping. Convolution libraries are
slow for the large kernels where this matters. The kernel layouts, HWIO and transposed HWOI, reshape to matrices without a
copy.

A convolution of one pixel with a larger stride is the product of the pixels that it reads. With oneDNN, its own gradient
damages the heap (TensorFlow 2.21, docs/upstream-faults.md). For the same reason a convolution of one channel with a stride of
1 down and a larger one across gets a second channel, of zeros: oneDNN reads memory beyond its image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow

tf = tensorflow.compat.v1

KINDS = ("Conv2D", "Conv2DBackpropInput")
GRADIENT = "MultisegPatchProduct"
# All such convolutions are lowered: none of 28 layers (1x1 to 16x16, 1 to 1024 channels, batches of 1, 4 and 32; forward and
# backward, one thread of an AMD EPYC, processor time, measured alternately) became slower. Small kernels and batches took 10%
# less time, 16x16 in batches of 32 took 1/2 to 1/14 of the time. In NHWC, patches are rows of whole pixels, which copy fast.

# Minimum number of input channels per input pixel of a transposed convolution for which the transposed product is faster: by up
# to a factor of 2 for small batches from 32 on (the FCN has 256); below, reordering the result costs up to 3 times as much.
MIN_CHANNELS_PER_PIXEL = 32


def lower(graph: Any, device: str) -> tuple[Any, list[Any]]:
    """Return a copy of ``graph`` and its collections with such convolutions replaced by products, and the replaced operations.

    All tensors keep their names. If there is nothing to replace, the graph itself is returned. ``device`` is the device of the
    session: cpu or cuda.
    """
    operations = graph.get_operations()
    lowerable = {op.name: op for op in operations if op.type in KINDS and _is_product(op)}
    # a custom gradient function may refer to tensors of its graph: its operation cannot be copied to another graph
    if not lowerable or any("_gradient_op_type" in op.node_def.attr for op in operations):
        return graph, []
    meta = tf.train.export_meta_graph(graph=graph)
    nodes = list(meta.graph_def.node)
    del meta.graph_def.node[:]
    for node in nodes:
        op = lowerable.get(node.name)
        meta.graph_def.node.extend([node] if op is None else _product(node, op, device))
    lowered = tf.Graph()
    with lowered.as_default():
        tf.train.import_meta_graph(meta)
    return lowered, list(lowerable.values())


def _sides(op: Any) -> tuple[Any, Any, Any]:
    """Return the kernel (h, w, image channels, grid channels), the image, and the grid, which has one pixel for each patch."""
    if op.type == "Conv2D":
        return op.inputs[1], op.inputs[0], op.outputs[0]
    return op.inputs[1], op.outputs[0], op.inputs[2]


def _is_product(op: Any) -> bool:
    """Return whether a convolution can be replaced by a matrix product over patches, or by one of two channels."""
    kernel, image, grid = _sides(op)
    if not kernel.shape.is_fully_defined() or image.shape.rank != 4 or grid.shape.rank != 4:
        return False
    return bool(
        op.get_attr("data_format") == b"NHWC"
        and op.get_attr("dilations") == [1, 1, 1, 1]
        and (_reads_single_pixels(op) or _divides_image(op) or _reads_beyond(op))
        # otherwise the convolution is grouped
        and [image.shape.as_list()[3], grid.shape.as_list()[3]] == kernel.shape.as_list()[2:]
    )


def _divides_image(op: Any) -> bool:
    """Return whether the kernel equals the stride, and there is no padding."""
    return op.get_attr("strides") == [1, *_sides(op)[0].shape.as_list()[:2], 1] and (
        op.get_attr("padding") == b"VALID" or (op.get_attr("padding") == b"SAME" and _covered(op))
    )


def _reads_single_pixels(op: Any) -> bool:
    """Return whether a convolution has a kernel of one pixel and a larger stride; SAME and VALID are then the same."""
    return (
        op.type == "Conv2D"
        and _sides(op)[0].shape.as_list()[:2] == [1, 1]
        and max(op.get_attr("strides")) > 1
        and op.get_attr("padding") in (b"VALID", b"SAME")
    )


def _reads_beyond(op: Any) -> bool:
    """Return whether oneDNN may read beyond the image of a convolution: one channel, stride 1 down and a larger one across."""
    return (
        op.type == "Conv2D"
        and _sides(op)[0].shape.as_list()[2] == 1
        and op.get_attr("strides")[1] == 1 < op.get_attr("strides")[2]
        and op.get_attr("padding") in (b"VALID", b"SAME")
    )


def _covered(op: Any) -> bool:
    """Return whether the patches are known to cover the image exactly: no remainder, and SAME adds no padding."""
    kernel, image, grid = (tensor.shape.as_list() for tensor in _sides(op))
    return all(size and image[axis] == size * kernel[axis - 1] for axis, size in enumerate(grid) if axis in (1, 2))


def _product(node: Any, op: Any, device: str) -> Iterator[Any]:
    """Yield the nodes that replace the convolution ``node``; the last one has its name."""
    with tf.Graph().as_default() as fragment:
        arguments = [tf.placeholder(tensor.dtype, tensor.shape) for tensor in op.inputs]
        if _reads_single_pixels(op):
            _, rows, columns, _ = op.get_attr("strides")
            _convolution(arguments[1], arguments[0][:, ::rows, ::columns], True, device)
        elif not _divides_image(op):
            # not by Pad: TensorFlow computes it together with the convolution, which fails for channels
            image, kernel = (
                tf.concat([argument, tf.zeros_like(argument)], axis)
                for argument, axis in zip(arguments, (3, 2))  # noqa: B905
            )
            padding = op.get_attr("padding").decode()
            tf.nn.conv2d(image, kernel, op.get_attr("strides"), padding, name="output")
        elif op.type == "Conv2D":
            _convolution(arguments[1], arguments[0], _covered(op), device)
        else:
            size = None if _covered(op) else _lengths(op.outputs[0].shape, arguments[0])
            _transposed_convolution(arguments[1], arguments[2], size)
    # operations of the user may have names in the scope of the convolution, e.g. those of a separable convolution
    scope = op.graph.unique_name(f"{node.name}/lowered", mark_as_used=False)
    inputs, controls = node.input[: len(arguments)], node.input[len(arguments) :]
    names = {"output": node.name, **{argument.op.name: inputs[i] for i, argument in enumerate(arguments)}}
    for part in fragment.as_graph_def().node:
        if part.op != "Placeholder":
            part.input[:] = [names.get(source, f"{scope}/{source}") for source in part.input] + list(controls)
            part.name = names.get(part.name, f"{scope}/{part.name}")
            part.device = node.device
            yield part


def _lengths(shape: Any, dynamic_shape: Any) -> list[Any]:
    """Return the height and width of an image: numbers if the graph knows them, else elements of ``dynamic_shape``."""
    return [
        dynamic_shape[axis] if length is None else length
        for axis, length in enumerate(shape.as_list())
        if axis in (1, 2)
    ]


def _convolution(kernel: Any, image: Any, covered: bool, device: str) -> None:
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
    if device == "cpu" and kernel.dtype == tf.float32:
        with tf.get_default_graph().gradient_override_map({"SparseMatMul": GRADIENT}):
            # The operands are dense: SparseMatMul is the product that oneDNN does not replace. oneDNN needs up to twice the time
            # for 32 to 256 patches and a long inner dimension. The operation exists for float32 on CPUs only.
            product = tf.raw_ops.SparseMatMul(a=patches, b=kernel)
    else:
        product = tf.matmul(patches, kernel)
    tf.reshape(product, [-1, rows, columns, outputs], name="output")


def _gradient(op: Any, gradient: Any) -> tuple[Any, Any]:
    """Return the gradients of patches @ kernel."""
    patches, kernel = op.inputs
    return tf.matmul(gradient, kernel, transpose_b=True), tf.matmul(patches, gradient, transpose_a=True)


tf.RegisterGradient(GRADIENT)(_gradient)


def _transposed_convolution(kernel: Any, grid: Any, size: list[Any] | None) -> None:
    """Add the operations of a transposed convolution as a product; ``size`` is that of the image unless patches cover it."""
    height, width, outputs, inputs = kernel.shape.as_list()
    rows, columns = _lengths(grid.shape, tf.shape(grid))
    pixels, kernel = tf.reshape(grid, [-1, inputs]), tf.reshape(kernel, [-1, inputs])
    if grid.shape[1:].is_fully_defined() and inputs >= MIN_CHANNELS_PER_PIXEL * rows * columns:
        # transposed product: oneDNN then reads the kernel along its rows
        product = tf.matmul(kernel, pixels, transpose_b=True)
        patches = tf.reshape(product, [height, width * outputs, -1, rows, columns])
        image = tf.transpose(patches, [2, 3, 0, 4, 1])
    else:
        product = tf.matmul(pixels, kernel, transpose_b=True)
        patches = tf.reshape(product, [-1, rows, columns, height, width * outputs])
        image = tf.transpose(patches, [0, 1, 3, 2, 4])
    if size is None:
        tf.reshape(image, [-1, rows * height, columns * width, outputs], name="output")
    else:
        image = tf.reshape(image, [-1, rows * height, columns * width, outputs])
        remainder = [[0, 0], [0, size[0] - rows * height], [0, size[1] - columns * width], [0, 0]]
        tf.pad(image, remainder, name="output")
