"""Elementwise losses by name; the mean over all elements is the loss. Output and labels have the same shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import tensorflow

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


LOSSES: dict[str, Callable[..., Any]] = {"l1": l1, "l2": l2, "smooth_l1": smooth_l1, "huber": huber}


def named(name: str | None, options: Mapping[str, float]) -> Loss | None:
    """Return the loss ``name`` with its parameters; None for the file's own loss (``name`` is None)."""
    return None if name is None else partial(LOSSES[name], **options)
