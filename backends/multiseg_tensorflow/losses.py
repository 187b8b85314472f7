"""The named losses: those of each element, of which the mean is the loss, and those of classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow

from multiseg.network import NetworkSpec, unequal_elements
from multiseg_tensorflow import class_losses

tf = tensorflow.compat.v1

Loss = Callable[[Any, Any], Any]


def l1(output: Any, labels: Any) -> Any:
    """Return the absolute difference."""
    return tf.abs(output - labels)


def l2(output: Any, labels: Any) -> Any:
    """Return the squared difference."""
    return tf.square(output - labels)


def smooth_l1(output: Any, labels: Any) -> Any:
    """Return d^2 / 2 for |d| <= 1, else |d| - 1/2."""
    size = tf.abs(output - labels)
    small = tf.minimum(size, 1.0)
    return small * (size - 0.5 * small)


def huber(output: Any, labels: Any, delta: float) -> Any:
    """Return d^2 / 2 for |d| <= delta, else delta (|d| - delta / 2)."""
    size = tf.abs(output - labels)
    small = tf.minimum(size, delta)
    return small * (size - 0.5 * small)


LOSSES: dict[str, Callable[..., Any]] = {
    "l1": l1, "l2": l2, "smooth_l1": smooth_l1, "huber": huber, **class_losses.LOSSES,
}  # fmt: skip


def named(spec: NetworkSpec) -> Loss | None:
    """Return the loss that a specification names, as a scalar of output and labels; None for the file's own loss."""
    if spec.loss is None:
        return None
    loss = partial(LOSSES[spec.loss], **spec.loss_options)
    if spec.loss in class_losses.LOSSES:
        return partial(loss, ignore=spec.ignore_index, weights=spec.class_weights)
    return lambda output, labels: tf.reduce_mean(loss(output, _like(output, labels)))


def of_probabilities(spec: NetworkSpec) -> dict[str, Any]:
    """Return the items of a network's description about a named loss whose labels are probabilities; see multiseg.network."""
    label_max = spec.loss_options.get("label_max")
    return {} if label_max is None else {"logits": True, "label_range": [0, label_max]}


def _like(output: Any, labels: Any) -> Any:
    """Return labels in the shape of the output.

    Raises ModelError if they have different numbers of elements, which TensorFlow might broadcast.
    """
    output_shape, label_shape = output.shape.as_list()[1:], labels.shape.as_list()[1:]
    if output_shape == label_shape or None in (*output_shape, *label_shape):
        return labels
    if math.prod(output_shape) != math.prod(label_shape):
        raise unequal_elements(output_shape, label_shape, "H, W, C")
    return tf.reshape(labels, tf.shape(output))
