"""Solvers as one TensorFlow operation: the losses' gradients, the user's own change of them, and the update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow

from multiseg_tensorflow.graph import UserGraph

tf = tensorflow.compat.v1


def update(user: UserGraph, solver: Mapping[str, Any], rate: Any) -> Any:
    """The operation that updates the variables once, at the learning rate in the tensor ``rate``.

    ``weight_decay`` adds that many times each variable to its gradient.
    """
    optimizer = _optimizer(solver, rate)
    decay = float(solver.get("weight_decay", 0.0))
    updates = tf.get_collection(tf.GraphKeys.UPDATE_OPS)  # e.g. the moving averages of batch normalisation
    for loss, variables in user.losses:
        gradients = user.tower.gradientUpdate(optimizer.compute_gradients(loss, variables))
        if decay:
            gradients = [(g if g is None else g + decay * variable, variable) for g, variable in gradients]
        with tf.control_dependencies([user.loss]):  # the loss reported is that before the update
            updates.append(optimizer.apply_gradients(gradients))
    return tf.group(*updates)


def _optimizer(solver: Mapping[str, Any], rate: Any) -> Any:
    name, momentum = solver["name"], float(solver.get("momentum", 0.0))
    if name == "adam":
        return tf.train.AdamOptimizer(rate, momentum, float(solver["momentum2"]), float(solver["delta"]))
    if momentum:
        return tf.train.MomentumOptimizer(rate, momentum, use_nesterov=name == "nesterov")
    return tf.train.GradientDescentOptimizer(rate)
