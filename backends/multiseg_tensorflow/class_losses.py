"""The named losses of classes, as scalar tensors. docs/losses.md has their formulas.

Functions take an output (N, H, W, C) or (N, C) and float32 labels (N, H, W, 1). Their means and quotients are written so that
multiseg_tensorflow.loss_terms finds the divisors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow

from multiseg.errors import ModelError
from multiseg.network import unequal_elements
from multiseg_tensorflow import digits

tf = tensorflow.compat.v1


class Labelled:
    """Scores (N, P, C) of an output, class indices (N, P) with 0 where they do not count, and whether they count."""

    def __init__(self, output: Any, labels: Any, ignore: int | None, weights: Sequence[float]) -> None:
        scores = before(output, ("Softmax", "LogSoftmax"))
        self.classes = scores.shape.as_list()[-1]
        _check_positions(scores, labels)
        self.scores = tf.reshape(scores, [tf.shape(scores)[0], -1, self.classes])
        flat = tf.reshape(labels, [tf.shape(labels)[0], -1])
        self.counted = tf.ones_like(flat, tf.bool) if ignore is None else tf.not_equal(flat, float(ignore))
        self.indices = tf.cast(tf.where(self.counted, flat, tf.zeros_like(flat)), tf.int32)
        self.weights = np.asarray(weights, np.float32)
        tf.add_to_collection(digits.CLASS_LOSSES, (self.classes, () if ignore is None else (ignore,)))

    @property
    def surprise(self) -> Any:
        """The cross entropy of each position (N, P)."""
        return tf.nn.sparse_softmax_cross_entropy_with_logits(logits=self.scores, labels=self.indices)

    @property
    def hits(self) -> Any:
        """1 for the label's class of each position that counts, else 0: (N, P, C)."""
        return tf.one_hot(self.indices, self.classes) * tf.cast(self.counted, tf.float32)[..., tf.newaxis]

    def mean(self, losses: Any) -> Any:
        """Return the sum of weighted losses (N, P) of the labels that count, divided by their number; 0 if none counts."""
        if len(self.weights):
            losses = losses * tf.gather(self.weights, self.indices)
        return mean(losses, self.counted)


def mean(losses: Any, counted: Any) -> Any:
    """Return the sum of the losses that count divided by their number, 0 if none counts."""
    counts = tf.cast(counted, losses.dtype)
    return tf.reduce_sum(tf.where(counted, losses, tf.zeros_like(losses))) / tf.maximum(tf.reduce_sum(counts), 1)


def before(output: Any, types: Sequence[str]) -> Any:
    """Return the input of the last operation if it is of these types and along the last axis, else the output."""
    last = output.op
    while last.type == "Identity":
        last = last.inputs[0].op
    return last.inputs[0] if last.type in types else output


def _check_positions(scores: Any, labels: Any) -> None:
    """Raise ModelError unless there is one label for each position of the scores."""
    positions, given = scores.shape.as_list()[1:-1] or [1, 1], labels.shape.as_list()[1:]
    known = None not in (*positions, *given)
    if given[-1] != 1 or (known and np.prod(positions) != np.prod(given)):
        raise ModelError(
            f"the loss takes scores (H, W, classes) and labels (H, W, 1); the output is {tuple(scores.shape.as_list()[1:])}, the "
            f"labels are {tuple(given)}"
        )


def cross_entropy(output: Any, labels: Any, ignore: int | None, weights: Sequence[float]) -> Any:
    """Return the weighted cross entropy of the softmax, divided by the number of labels that count."""
    by = Labelled(output, labels, ignore, weights)
    return by.mean(by.surprise)


def focal(output: Any, labels: Any, ignore: int | None, weights: Sequence[float], gamma: float) -> Any:
    """Return the focal loss, divided by the number of labels that count."""
    by = Labelled(output, labels, ignore, weights)
    p = tf.reduce_sum(tf.nn.softmax(by.scores) * tf.one_hot(by.indices, by.classes), 2)
    # the lower limit keeps the slope of a power below 1 finite where the probability is rounded to 1
    return by.mean(tf.maximum(1 - p, 2.0**-24) ** gamma * by.surprise)


def dice(output: Any, labels: Any, ignore: int | None, weights: Sequence[float], smooth: float) -> Any:
    """Return the soft Dice loss, mean over images and classes."""
    by = Labelled(output, labels, ignore, weights)
    hits, p = by.hits, tf.nn.softmax(by.scores) * tf.cast(by.counted, tf.float32)[..., tf.newaxis]
    top = 2 * tf.reduce_sum(p * hits, 1) + smooth
    return tf.reduce_mean(1 - top / (tf.reduce_sum(p, 1) + tf.reduce_sum(hits, 1) + smooth))


def cross_entropy_and_dice(
    output: Any, labels: Any, ignore: int | None, weights: Sequence[float], smooth: float
) -> Any:
    """Return the sum of cross_entropy and dice."""
    return cross_entropy(output, labels, ignore, weights) + dice(output, labels, ignore, (), smooth)


def binary_cross_entropy(
    output: Any, labels: Any, ignore: int | None, weights: Sequence[float], label_max: float
) -> Any:
    """Return the cross entropy of the sigmoid of one channel, divided by the number of labels that count."""
    scores = before(output, ("Sigmoid",))
    shape, given = scores.shape.as_list()[1:], labels.shape.as_list()[1:]
    if None not in (*shape, *given) and np.prod(shape) != np.prod(given):
        raise unequal_elements(shape, given, "H, W, C")
    labels = tf.reshape(labels, tf.shape(scores))
    counted = tf.ones_like(labels, tf.bool) if ignore is None else tf.not_equal(labels, float(ignore))
    targets = tf.where(counted, labels, tf.zeros_like(labels)) / label_max
    return mean(tf.nn.sigmoid_cross_entropy_with_logits(logits=scores, labels=targets), counted)


LOSSES: dict[str, Callable[..., Any]] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "cross_entropy+dice": cross_entropy_and_dice,
    "focal": focal,
    "binary_cross_entropy": binary_cross_entropy,
}
