"""Solvers as one TensorFlow operation: gradients of the user's loss, the file's own change of them, the update."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow

from multiseg_tensorflow.graph import UserGraph

tf = tensorflow.compat.v1


def train_operation(user: UserGraph, solver: Mapping[str, Any], rate: Any) -> Any:
    """The operation that updates the variables of ``user`` once, at the learning rate in the tensor ``rate``.

    The gradient is of the losses without their regularisation terms, as in DIGITS; ``weight_decay`` adds its own L2 term.
    """
    optimizer = _optimizer(solver, rate)
    decay = float(solver.get("weight_decay", 0.0))
    updates = []
    for loss, variables in user.losses:
        gradients = user.tower.gradientUpdate(optimizer.compute_gradients(loss, variables))
        if decay:
            gradients = [(None if gradient is None else gradient + decay * variable, variable) for gradient, variable in gradients]
        # what is reported must be read before the update: it may share the variables' memory
        with tf.control_dependencies([user.loss, *tf.get_collection(tf.GraphKeys.UPDATE_OPS)]):
            updates.append(optimizer.apply_gradients(gradients))
    return tf.group(*updates)


def _optimizer(solver: Mapping[str, Any], rate: Any) -> Any:
    name, momentum = solver["name"], float(solver.get("momentum", 0.0))
    if name == "adam":
        return tf.train.AdamOptimizer(rate, momentum, float(solver["momentum2"]), float(solver["delta"]))
    if momentum:
        return tf.train.MomentumOptimizer(rate, momentum, use_nesterov=name == "nesterov")
    return tf.train.GradientDescentOptimizer(rate)
