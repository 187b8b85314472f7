"""The names that a DIGITS TensorFlow file imports from the modules `model` and `utils` of DIGITS."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow

from multiseg.network import IMAGES, LabelKind

tf = tensorflow.compat.v1

STAGE_TRAIN, STAGE_VAL, STAGE_INF = "train", "val", "inf"


class _Mode:
    """An attribute of a tower that is another one in training, validation and inference; reading it is noted."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __set__(self, tower: Tower, value: Any) -> None:
        vars(tower)[self.name] = value

    def __get__(self, tower: Tower | None, owner: type) -> Any:
        if tower is None:
            return self
        vars(tower)["reads_mode"] = True
        try:
            return vars(tower)[self.name]
        except KeyError:
            raise AttributeError(self.name) from None


class Tower:
    """Base class of `UserModel`. ``input_shape`` is [H, W, C]; ``x`` and ``y`` are NHWC, ``y`` is None in inference.

    ``reads_mode``, no attribute of DIGITS, is whether the file may have read what differs between training and inference.
    """

    reads_mode = False
    y, is_training, is_inference = _Mode(), _Mode(), _Mode()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # a constructor of the file's own receives the values
        cls.reads_mode = cls.__init__ is not Tower.__init__

    def __init__(
        self, x: Any, y: Any, input_shape: list[int], nclasses: int | None, is_training: bool, is_inference: bool
    ) -> None:
        self.x = x
        self.y = y
        self.input_shape = input_shape
        self.nclasses = nclasses
        self.is_training = is_training
        self.is_inference = is_inference
        self.summaries: list[Any] = []
        self.train = None
        self.is_graph = False  # a graph of a file, which has no loss of its own; not an attribute of DIGITS
        self.label_kind: LabelKind = IMAGES  # how the network reads ``y``; not an attribute of DIGITS

    def gradientUpdate(self, grad: Any) -> Any:  # the name in DIGITS
        """Return the (gradient, variable) pairs to apply; files override it to change them."""
        return grad


def model_property(function: Callable[[Any], Any]) -> Any:
    """Decorate a method as a property that builds its part of the graph once."""
    return functools.cached_property(function)


class GraphKeys:
    """Names of scopes and collections in DIGITS."""

    TEMPLATE = "model"
    QUEUE_RUNNERS = "queue_runner"
    MODEL = "model"
    LOSS = "loss"
    LOSSES = "losses"
    LOADER = "data"


def mse_loss(lhs: Any, rhs: Any) -> Any:
    """Return the mean squared difference over all elements."""
    return tf.reduce_mean(tf.square(lhs - rhs))


# Collections of a graph, which exported files use as well: the labels that do not count in losses of class indices, and for each
# such loss the number of its classes with the labels that it ignores itself.
IGNORED, CLASS_LOSSES = "multiseg_ignored", "multiseg_class_losses"


def classification_loss(pred: Any, y: Any) -> Any:
    """Return the mean cross entropy of logits (..., classes) and class indices, one for each vector of logits.

    Labels that the job or the dataset ignores do not count; the loss is 0 if no label is left.
    """
    labels = tf.reshape(tf.cast(y, tf.int64), [-1])
    logits = tf.reshape(pred, [-1, pred.shape[-1]])
    tf.add_to_collection(CLASS_LOSSES, (logits.shape.as_list()[-1], ()))
    ignored = tf.get_collection(IGNORED)
    if not ignored:
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels))
    counted = tf.reduce_all([tf.not_equal(labels, value) for value in ignored], axis=0)
    labels = tf.where(counted, labels, tf.zeros_like(labels))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=logits, labels=labels)
    counts = tf.cast(counted, losses.dtype)
    return tf.reduce_sum(losses * counts) / tf.maximum(tf.reduce_sum(counts), 1)


def constrastive_loss(lhs: Any, rhs: Any, y: Any, margin: float = 1.0) -> Any:
    """Return Caffe's contrastive loss without its factor of 1/2; DIGITS misspells the name so."""
    squared = tf.reduce_sum(tf.square(lhs - rhs), 1)
    dissimilar = tf.square(tf.maximum(margin - tf.sqrt(squared + 1e-6), 0))
    return tf.reduce_mean(y * squared + (1 - y) * dissimilar)


def classification_accuracy(pred: Any, y: Any) -> Any:
    """Return the fraction of rows whose highest value is at the label."""
    return tf.reduce_mean(tf.cast(tf.equal(tf.cast(y, tf.int64), tf.argmax(pred, 1)), tf.float32))


def classification_accuracy_top_n(pred: Any, y: Any, top_n: int) -> Any:
    """Return the fraction of rows whose label is among the ``top_n`` highest values."""
    return tf.reduce_mean(tf.cast(tf.nn.in_top_k(pred, y, top_n), tf.float32))


def nhwc_to_nchw(x: Any) -> Any:
    """Transpose (N, H, W, C) to (N, C, H, W)."""
    return tf.transpose(x, [0, 3, 1, 2])


def nchw_to_nhwc(x: Any) -> Any:
    """Transpose (N, C, H, W) to (N, H, W, C)."""
    return tf.transpose(x, [0, 2, 3, 1])


def hwc_to_chw(x: Any) -> Any:
    """Transpose (H, W, C) to (C, H, W)."""
    return tf.transpose(x, [2, 0, 1])


def chw_to_hwc(x: Any) -> Any:
    """Transpose (C, H, W) to (H, W, C)."""
    return tf.transpose(x, [1, 2, 0])


def bgr_to_rgb(x: Any) -> Any:
    """Reverse the channels of (..., C)."""
    return tf.reverse(x, [-1])


rgb_to_bgr = bgr_to_rgb


def get_available_gpus() -> list[str]:
    """Return TensorFlow's names of the available GPUs."""
    return [device.name for device in tensorflow.config.list_logical_devices("GPU")]
