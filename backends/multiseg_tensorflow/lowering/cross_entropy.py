"""The cross entropy of class indices in operations that use the processor's vectors, with its gradient.

TensorFlow's own, SparseSoftmaxCrossEntropyWithLogits, takes 1.5 to 2.4 times as long on a CPU for 2 to 150 classes (`python
benchmarks/lowering.py tensorflow`, with the gradient; 1.8 to 3.1 times for the loss alone).
"""

from __future__ import annotations

import re
from typing import Any

import tensorflow

tf = tensorflow.compat.v1

GRADIENT = "MultisegCrossEntropy"
LABELS = "score_of_label"  # the operation that fails for a label that is no class


def applies(op: Any, device: str) -> bool:
    """Return whether an operation is such a cross entropy, on a CPU: on a GPU, a label that is no class would not be an error."""
    return bool(
        op.type == "SparseSoftmaxCrossEntropyWithLogits" and device == "cpu" and op.inputs[0].dtype == tf.float32
    )


def add(op: Any, arguments: list[Any], device: str) -> None:
    """Add the operations for (scores (R, C), labels (R)): the loss (R) and its gradient, the outputs of TensorFlow's own."""
    scores, labels = arguments
    classes = tf.shape(scores)[1]
    shifted = scores - tf.reduce_max(scores, 1, keepdims=True)
    powers = tf.exp(shifted)
    total = tf.matmul(powers, tf.ones([classes, 1]))  # a sum over 1 of these few is slower
    loss = tf.log(total[:, 0]) - tf.gather(shifted, labels, axis=1, batch_dims=1, name=LABELS)
    slope = powers * (1 / total) - tf.one_hot(labels, classes)
    with tf.get_default_graph().gradient_override_map({"IdentityN": GRADIENT}):
        tf.identity_n([loss, slope, scores], name="output")


def _gradient(op: Any, gradient: Any, *_: Any) -> tuple[Any, Any, Any]:
    return None, None, gradient[:, tf.newaxis] * op.outputs[1]


tf.RegisterGradient(GRADIENT)(_gradient)


def wrong_label(message: str) -> str | None:
    """Return what TensorFlow's operation says of a label that is no class, if that is what an error's message is about."""
    found = re.search(r"= (-?\d+) is not in \[0, (\d+)\)", message)
    if found is None or f"/lowered/{LABELS}" not in message:
        return None
    return f"Received a label value of {found[1]} which is outside the valid range of [0, {found[2]})."
