"""The solvers of the recipe `equal` that TensorFlow's own differ from, as optimisers of TensorFlow's kind.

Formulas: docs/solvers.md. TensorFlow's SGD with momentum, Nesterov and AdaDelta are the recipe's as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow

tf = tensorflow.compat.v1
Optimizer: Any = tf.train.Optimizer


def make_steps(optimizer: Any, variables: list[Any]) -> None:
    """Give an optimiser a variable that counts its steps."""
    optimizer._create_non_slot_variable(tf.constant(0, tf.int64), "steps", min(variables, key=lambda v: v.name))


def steps_of(optimizer: Any) -> Any:
    """That variable, in the default graph."""
    return optimizer._get_non_slot_variable("steps", graph=tf.get_default_graph())


class AdaGrad(Optimizer):
    """TensorFlow's own starts its sum at 0.1 and divides by its root alone."""

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
    """TensorFlow's own starts its mean square at 1 and has epsilon within the root."""

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
    """TensorFlow's own, but for the bias correction: here of the number of steps, in float64.

    TensorFlow's multiplies powers of its betas in float32, whose rounding errors add up.
    """

    def __init__(self, rate: Any, beta1: float, beta2: float, delta: float) -> None:
        super().__init__(use_locking=False, name="NeutralAdam")
        self._rate, self._delta = rate, delta
        # as float32, as the operation takes them
        self._betas = [float(np.float32(beta)) for beta in (beta1, beta2)]

    def _create_slots(self, variables: list[Any]) -> None:
        make_steps(self, variables)
        for variable in variables:
            self._zeros_slot(variable, "m", self._name)
            self._zeros_slot(variable, "v", self._name)

    def _prepare(self) -> None:
        step = tf.cast(steps_of(self) + 1, tf.float64)
        first, second = (1 - tf.constant(beta, tf.float64) ** step for beta in self._betas)
        self._corrected_rate = tf.cast(tf.cast(self._rate, tf.float64) * tf.sqrt(second) / first, tf.float32)

    def _resource_apply_dense(self, gradient: Any, variable: Any) -> Any:
        return tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self.get_slot(variable, "m").handle,
            v=self.get_slot(variable, "v").handle,
            beta1_power=0.0,  # no correction but the rate's
            beta2_power=0.0,
            lr=self._corrected_rate,
            beta1=self._betas[0],
            beta2=self._betas[1],
            epsilon=self._delta,
            grad=gradient,
        )

    def _finish(self, updates: list[Any], name: str) -> Any:
        with tf.control_dependencies(updates):
            return tf.group(*updates, steps_of(self).assign_add(1), name=name)
