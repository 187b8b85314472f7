"""Convolutions whose kernel equals their stride, rewritten in a graph as one matrix product over all patches.

Without padding, such a convolution cuts the image into patches that do not overlap, and the patches of the whole batch
times the kernel are the result; a transposed convolution is the same backwards. Convolution libraries are slow at the
large kernels where this matters. The kernels' layouts, HWIO and transposed HWOI, are matrices without being copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow

tf = tensorflow.compat.v1

KINDS = ("Conv2D", "Conv2DBackpropInput")
GRADIENT = "MultisegPatchProduct"
# All are lowered: none of 28 layers (1x1 to 16x16, 1 to 1024 channels, batches of 1, 4 and 32; forward and backward, one thread
# of an AMD EPYC, processor time, by turns) took longer so; small kernels and batches took a tenth less, 16x16 in batches of 32 a
# half to a fourteenth of the time. In NHWC what is cut out are rows of whole pixels, which is quick.

# Channels for each pixel of a transposed convolution's image, from which on its product is quicker turned round: at 32 and more
# by up to 2 for small batches (it is the FCN's, with 256), below it costs up to 3 times as much to bring in order afterwards.
TURNED = 32


def lower(graph: Any, device: str) -> tuple[Any, list[Any]]:
    """A copy of ``graph`` with its collections in which such convolutions are products, and the operations replaced.

    All tensors of the graph keep their names. Without such convolutions the graph itself is returned. ``device`` is that of the
    session: cpu or cuda.
    """
    operations = graph.get_operations()
    lowerable = {op.name: op for op in operations if op.type in KINDS and _is_product(op)}
    # a gradient function that comes with an operation may hold tensors of its own graph: it cannot move to another
    if not lowerable or any("_gradient_op_type" in op.node_def.attr for op in operations):
        return graph, []
    meta = tf.train.export_meta_graph(graph=graph)
    nodes = list(meta.graph_def.node)
    del meta.graph_def.node[:]
    for node in nodes:
        replaced = lowerable.get(node.name)
        meta.graph_def.node.extend([node] if replaced is None else _product(node, replaced, device))
    lowered = tf.Graph()
    with lowered.as_default():
        tf.train.import_meta_graph(meta)
    return lowered, list(lowerable.values())


def _sides(op: Any) -> tuple[Any, Any, Any]:
    """The kernel (h, w, channels of the image, channels of the grid), the image, and the grid of a pixel per patch."""
    if op.type == "Conv2D":
        return op.inputs[1], op.inputs[0], op.outputs[0]
    return op.inputs[1], op.outputs[0], op.inputs[2]


def _is_product(op: Any) -> bool:
    kernel, image, grid = _sides(op)
    if not kernel.shape.is_fully_defined() or image.shape.rank != 4 or grid.shape.rank != 4:
        return False
    return bool(
        op.get_attr("data_format") == b"NHWC"
        and op.get_attr("strides") == [1, *kernel.shape.as_list()[:2], 1]
        and op.get_attr("dilations") == [1, 1, 1, 1]
        and (op.get_attr("padding") == b"VALID" or (op.get_attr("padding") == b"SAME" and _covered(op)))
        # else there are groups
        and [image.shape.as_list()[3], grid.shape.as_list()[3]] == kernel.shape.as_list()[2:]
    )


def _covered(op: Any) -> bool:
    """Whether it is known that the patches cover the image: no rest is left, and SAME pads nothing."""
    kernel, image, grid = (tensor.shape.as_list() for tensor in _sides(op))
    return all(known and image[axis] == known * kernel[axis - 1] for axis, known in enumerate(grid) if axis in (1, 2))


def _product(node: Any, op: Any, device: str) -> Iterator[Any]:
    """The nodes that take the place of the convolution ``node``, the last of them under its name."""
    with tf.Graph().as_default() as fragment:
        arguments = [tf.placeholder(tensor.dtype, tensor.shape) for tensor in op.inputs]
        if op.type == "Conv2D":
            _convolution(arguments[1], arguments[0], _covered(op), device)
        else:
            size = None if _covered(op) else _lengths(op.outputs[0].shape, arguments[0])
            _transposed_convolution(arguments[1], arguments[2], size)
    # the user's own may have names below the convolution's, e.g. a separable one's
    scope = op.graph.unique_name(f"{node.name}/lowered", mark_as_used=False)
    inputs, controls = node.input[: len(arguments)], node.input[len(arguments) :]
    names = {"output": node.name, **{argument.op.name: inputs[i] for i, argument in enumerate(arguments)}}
    for part in fragment.as_graph_def().node:
        if part.op != "Placeholder":
            part.input[:] = [names.get(source, f"{scope}/{source}") for source in part.input] + list(controls)
            part.name = names.get(part.name, f"{scope}/{part.name}")
            part.device = node.device
            yield part


def _lengths(shape: Any, of_run: Any) -> list[Any]:
    """Height and width of an image: numbers where the graph knows them, else from what ``of_run`` will hold."""
    return [of_run[axis] if length is None else length for axis, length in enumerate(shape.as_list()) if axis in (1, 2)]


def _convolution(kernel: Any, image: Any, covered: bool, device: str) -> None:
    height, width, inputs, outputs = kernel.shape.as_list()
    tall, wide = _lengths(image.shape, tf.shape(image))
    rows, columns = tall // height, wide // width
    if not covered:  # a rest beyond the last whole window is not seen
        image = image[:, : rows * height, : columns * width]
    patches = tf.reshape(image, [-1, rows, height, columns, width * inputs])
    patches = tf.transpose(patches, [0, 1, 3, 2, 4])
    patches = tf.reshape(patches, [-1, height * width * inputs])
    kernel = tf.reshape(kernel, [-1, outputs])
    if device == "cpu" and kernel.dtype == tf.float32:
        with tf.get_default_graph().gradient_override_map({"SparseMatMul": GRADIENT}):
            # nothing is sparse: it is TensorFlow's name for a product that oneDNN does not take over, which needs up to twice the
            # time for 32 to 256 patches and a long sum. It is there for float32 on processors alone
            product = tf.raw_ops.SparseMatMul(a=patches, b=kernel)
    else:
        product = tf.matmul(patches, kernel)
    tf.reshape(product, [-1, rows, columns, outputs], name="output")


def _gradient(op: Any, gradient: Any) -> tuple[Any, Any]:
    """Gradients of patches @ kernel."""
    patches, kernel = op.inputs
    return tf.matmul(gradient, kernel, transpose_b=True), tf.matmul(patches, gradient, transpose_a=True)


tf.RegisterGradient(GRADIENT)(_gradient)


def _transposed_convolution(kernel: Any, grid: Any, size: list[Any] | None) -> None:
    """``size`` is the image's where the patches may not cover it."""
    height, width, outputs, inputs = kernel.shape.as_list()
    rows, columns = _lengths(grid.shape, tf.shape(grid))
    pixels, kernel = tf.reshape(grid, [-1, inputs]), tf.reshape(kernel, [-1, inputs])
    if grid.shape[1:].is_fully_defined() and inputs >= TURNED * rows * columns:
        # turned round: oneDNN reads the kernel along its rows then
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
        rest = [[0, 0], [0, size[0] - rows * height], [0, size[1] - columns * width], [0, 0]]
        tf.pad(image, rest, name="output")
