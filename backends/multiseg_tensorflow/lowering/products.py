"""Products of rows and a kernel; with a large kernel, the product with its transpose is a batch of one.

TensorFlow's MatMul with ``transpose_b``, which dense layers have as the gradient of their input, takes several times as long with
oneDNN on two threads as BatchMatMul, which computes the same. The other products of a step are fastest as MatMul. On GPUs, where
only patches use these products, nothing was measured.
"""

from __future__ import annotations

from typing import Any

import tensorflow

tf = tensorflow.compat.v1

GRADIENT, TRANSPOSED_GRADIENT = "MultisegProduct", "MultisegTransposedProduct"
# Elements of a kernel from which this is faster. Speedup of forward and backward of a dense layer (`python benchmarks/lowering.py
# dense`): 1024 x 1024 to 4096 x 4096 2.2 to 2.4 for 16 rows, 1.5 to 1.6 for 64, 1.2 for 256, 0.9 to 1.05 for 1 and 4; 512 x 512
# 1.4, 1.2, 1.05, and 0.7 to 0.9 for 1 and 4; 256 x 256 0.7 to 0.9.
SMALLEST_KERNEL = 2**18


def applies(op: Any, device: str) -> bool:
    """Return whether an operation is a product with a large kernel, as that of a dense layer."""
    if op.type != "MatMul" or device != "cpu" or op.get_attr("transpose_a"):
        return False
    return bool(op.inputs[0].shape.rank == 2 and _is_large(op.inputs[1]))


def add(op: Any, arguments: list[Any], device: str) -> None:
    """Add the operations of the product of (rows, kernel)."""
    tf.identity((transposed_product if op.get_attr("transpose_b") else product)(*arguments), name="output")


def product(rows: Any, kernel: Any) -> Any:
    """Return rows (R, I) @ kernel (I, O)."""
    if not _is_large(kernel):
        return tf.matmul(rows, kernel)
    with tf.get_default_graph().gradient_override_map({"MatMul": GRADIENT}):
        return tf.matmul(rows, kernel)


def transposed_product(rows: Any, kernel: Any) -> Any:
    """Return rows (R, O) @ the transpose of kernel (I, O)."""
    if not _is_large(kernel):
        return tf.matmul(rows, kernel, transpose_b=True)
    with tf.get_default_graph().gradient_override_map({"BatchMatMulV2": TRANSPOSED_GRADIENT}):
        batch = tf.raw_ops.BatchMatMulV2(x=tf.expand_dims(rows, 0), y=tf.expand_dims(kernel, 0), adj_y=True)
    return tf.squeeze(batch, 0)


def _is_large(kernel: Any) -> bool:
    return kernel.dtype == tf.float32 and (kernel.shape.num_elements() or 0) >= SMALLEST_KERNEL


def _gradient(op: Any, gradient: Any) -> tuple[Any, Any]:
    rows, kernel = op.inputs
    return transposed_product(gradient, kernel), tf.matmul(rows, gradient, transpose_a=True)


def _transposed_gradient(op: Any, gradient: Any) -> tuple[Any, ...]:
    rows, kernel, slope = (tf.squeeze(each, 0) for each in (*op.inputs, gradient))
    return tuple(tf.expand_dims(each, 0) for each in (product(slope, kernel), tf.matmul(slope, rows, transpose_a=True)))


tf.RegisterGradient(GRADIENT)(_gradient)
tf.RegisterGradient(TRANSPOSED_GRADIENT)(_transposed_gradient)
