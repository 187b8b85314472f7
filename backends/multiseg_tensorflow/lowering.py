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


def lower(graph: Any) -> tuple[Any, list[Any]]:
    """A copy of ``graph`` with its collections in which such convolutions are products, and the operations replaced.

    All tensors of the graph keep their names. Without such convolutions the graph itself is returned.
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
        meta.graph_def.node.extend(_product(node, lowerable[node.name]) if node.name in lowerable else [node])
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
    if not (
        kernel.shape.is_fully_defined() and image.shape[1:].is_fully_defined() and grid.shape[1:].is_fully_defined()
    ):
        return False
    height, width, image_channels, grid_channels = kernel.shape.as_list()
    _, rows, columns, channels = grid.shape.as_list()
    return bool(
        op.get_attr("data_format") == b"NHWC"
        and op.get_attr("padding") in (b"VALID", b"SAME")
        and op.get_attr("strides") == [1, height, width, 1]
        and op.get_attr("dilations") == [1, 1, 1, 1]
        and channels == grid_channels
        # the patches cover the image, so that SAME pads nothing; and there are no groups
        and image.shape.as_list()[1:] == [rows * height, columns * width, image_channels]
    )


def _product(node: Any, op: Any) -> Iterator[Any]:
    """The nodes that take the place of the convolution ``node``, the last of them under its name."""
    with tf.Graph().as_default() as fragment:
        arguments = [tf.placeholder(tensor.dtype, tensor.shape) for tensor in op.inputs]
        if op.type == "Conv2D":
            _convolution(arguments[1], arguments[0])
        else:
            _transposed_convolution(arguments[1], arguments[2])
    inputs, controls = node.input[: len(arguments)], node.input[len(arguments) :]
    names = {"output": node.name, **{argument.op.name: inputs[i] for i, argument in enumerate(arguments)}}
    for part in fragment.as_graph_def().node:
        if part.op != "Placeholder":
            part.input[:] = [names.get(source, f"{node.name}/{source}") for source in part.input] + list(controls)
            part.name = names.get(part.name, f"{node.name}/{part.name}")
            part.device = node.device
            yield part


def _convolution(kernel: Any, image: Any) -> None:
    height, width, inputs, outputs = kernel.shape.as_list()
    rows, columns = image.shape[1] // height, image.shape[2] // width
    patches = tf.reshape(image, [-1, rows, height, columns, width * inputs])
    if height > 1 and columns > 1:
        patches = tf.transpose(patches, [0, 1, 3, 2, 4])
    patches = tf.reshape(patches, [-1, height * width * inputs])
    with tf.get_default_graph().gradient_override_map({"SparseMatMul": GRADIENT}):
        # nothing is sparse: it is TensorFlow's name for a product that oneDNN does not take over, which needs up to twice the
        # time for 32 to 256 patches and a long sum
        product = tf.raw_ops.SparseMatMul(a=patches, b=tf.reshape(kernel, [-1, outputs]))
    tf.reshape(product, [-1, rows, columns, outputs], name="output")


def _gradient(op: Any, gradient: Any) -> tuple[Any, Any]:
    """Gradients of patches @ kernel."""
    patches, kernel = op.inputs
    return tf.matmul(gradient, kernel, transpose_b=True), tf.matmul(patches, gradient, transpose_a=True)


tf.RegisterGradient(GRADIENT)(_gradient)


def _transposed_convolution(kernel: Any, grid: Any) -> None:
    height, width, outputs, inputs = kernel.shape.as_list()
    _, rows, columns, _ = grid.shape.as_list()
    # grid @ kernel', turned round: oneDNN reads the kernel along its rows then
    product = tf.matmul(tf.reshape(kernel, [-1, inputs]), tf.reshape(grid, [-1, inputs]), transpose_b=True)
    patches = tf.reshape(product, [height, width * outputs, -1, rows, columns])
    image = tf.transpose(patches, [2, 3, 0, 4, 1])
    tf.reshape(image, [-1, rows * height, columns * width, outputs], name="output")
