"""Optimisers for the recipe `equal`, where TensorFlow's own optimisers compute a different update.

Formulas: docs/solvers.md. TensorFlow's SGD with momentum, Nesterov and AdaDelta already follow the recipe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow

tf = tensorflow.compat.v1
Optimizer: Any = tf.train.Optimizer


def create_step_counter(optimizer: Any, variables: list[Any]) -> None:
    """Create a variable of an optimiser that counts its steps (int64)."""
    optimizer._create_non_slot_variable(tf.constant(0, tf.int64), "steps", min(variables, key=lambda v: v.name))


def step_counter(optimizer: Any) -> Any:
    """Return the variable that counts an optimiser's steps, in the default graph."""
    return optimizer._get_non_slot_variable("steps", graph=tf.get_default_graph())


class AdaGrad(Optimizer):
    """AdaGrad; unlike tf.train.AdagradOptimizer, its sum starts at 0 and delta is added to the root."""

    def __init__(self, rate: Any, delta: float) -> None:
        super().__init__(use_locking=False, name="NeutralAdaGrad")
        self._rate, self._delta = rate, delta

    def _create_slots(self, variables: list[Any]) -> None:
        for variable in variables:
            self._zeros_slot(variable, "sum", self._name)

    def _resource_apply_dense(self, gradient: Any, variable: Any) -> Any:
        return tf.raw_ops.ResourceApplyAdagradV2(
            var=variable.handle,
            accum=self.get_slot(variable, "sum").handle,
            lr=self._rate,
            epsilon=self._delta,
            grad=gradient,
        )


class RMSProp(Optimizer):
    """RMSProp; unlike tf.train.RMSPropOptimizer, its mean square starts at 0 and delta is added to the root."""

    def __init__(self, rate: Any, decay: float, delta: float) -> None:
        super().__init__(use_locking=False, name="NeutralRMSProp")
        self._rate, self._decay, self._delta = rate, decay, delta

    def _create_slots(self, variables: list[Any]) -> None:
        for variable in variables:
            self._zeros_slot(variable, "mean_square", self._name)

    def _resource_apply_dense(self, gradient: Any, variable: Any) -> Any:
        slot = self.get_slot(variable, "mean_square")
        mean_square = self._decay * slot + (1 - self._decay) * tf.square(gradient)
        step = self._rate * gradient / (tf.sqrt(mean_square) + self._delta)
        return tf.group(slot.assign(mean_square), variable.assign_sub(step))


class Adam(Optimizer):
    """Adam; unlike tf.train.AdamOptimizer, the bias correction is computed from the number of steps, in float64.

    TensorFlow accumulates the powers of beta1 and beta2 in float32, and their rounding errors accumulate too.
    """

    def __init__(self, rate: Any, beta1: float, beta2: float, delta: float) -> None:
        super().__init__(use_locking=False, name="NeutralAdam")
        self._rate, self._delta = rate, delta
        # rounded to float32, as the operation rounds them
        self._betas = [float(np.float32(beta)) for beta in (beta1, beta2)]

    def _create_slots(self, variables: list[Any]) -> None:
        create_step_counter(self, variables)
        for variable in variables:
            self._zeros_slot(variable, "m", self._name)
            self._zeros_slot(variable, "v", self._name)

    def _prepare(self) -> None:
        step = tf.cast(step_counter(self) + 1, tf.float64)
        first, second = (1 - tf.constant(beta, tf.float64) ** step for beta in self._betas)
        self._corrected_rate = tf.cast(tf.cast(self._rate, tf.float64) * tf.sqrt(second) / first, tf.float32)

    def _resource_apply_dense(self, gradient: Any, variable: Any) -> Any:
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self.get_slot(variable, "m").handle,
            v=self.get_slot(variable, "v").handle,
            beta1_power=0.0,  # no further correction: the learning rate includes it
            beta2_power=0.0,
            lr=self._corrected_rate,
            beta1=self._betas[0],
            beta2=self._betas[1],
            epsilon=self._delta,
            grad=gradient,
        )

    def _finish(self, updates: list[Any], name: str) -> Any:
        with tf.control_dependencies(updates):
            return tf.group(*updates, step_counter(self).assign_add(1), name=name)
