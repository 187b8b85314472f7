"""The state of TensorFlow's optimisers, under neutral names (docs/solvers.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow

from multiseg.network import STEPS, Array
from multiseg_tensorflow import equal
from multiseg_tensorflow.weights import Weight

tf = tensorflow.compat.v1
TensorFlowAdam: Any = tf.train.AdamOptimizer


class Adam(TensorFlowAdam):
    """tf.train.AdamOptimizer with a step counter: the powers of beta that it keeps underflow, so they do not tell the step."""

    def _create_slots(self, variables: list[Any]) -> None:
        super()._create_slots(variables)
        equal.create_step_counter(self, variables)

    def _finish(self, updates: list[Any], name: str) -> Any:
        return tf.group(super()._finish(updates, name), equal.step_counter(self).assign_add(1))


_MOMENTS = {"m": "mean", "v": "square"}
SLOTS: dict[Any, dict[str, str]] = {  # TensorFlow's names -> neutral ones
    tf.train.GradientDescentOptimizer: {},
    tf.train.MomentumOptimizer: {"momentum": "momentum"},
    tf.train.AdagradOptimizer: {"accumulator": "square_sum"},
    tf.train.RMSPropOptimizer: {"rms": "square", "momentum": "displacement"},
    tf.train.AdadeltaOptimizer: {"accum": "square", "accum_update": "delta"},
    tf.train.FtrlOptimizer: {"accum": "square_sum", "linear": "linear"},
    Adam: _MOMENTS,
    equal.AdaGrad: {"sum": "square_sum"},
    equal.RMSProp: {"mean_square": "square"},
    equal.Adam: _MOMENTS,
}


class Slots:
    """The state of a network's optimisers; ``variables`` are all variables that hold it."""

    def __init__(self, trained: Mapping[str, tuple[Any, Any]], momentum: float) -> None:
        """``trained`` maps neutral names to variables and their optimisers; ``momentum`` is that of the optimisers."""
        self._slots = {
            f"{slot}/{name}": optimizer.get_slot(variable, tf_slot)
            for name, (variable, optimizer) in trained.items()
            for tf_slot, slot in SLOTS[type(optimizer)].items()
            if momentum or slot != "displacement"  # with a momentum of 0 the displacement is no state
        }
        optimizers = list(dict.fromkeys(optimizer for _, optimizer in trained.values()))
        adams = [optimizer for optimizer in optimizers if isinstance(optimizer, (Adam, equal.Adam))]
        self._steps = {f"{STEPS}/{number}": equal.step_counter(adam) for number, adam in enumerate(adams)}
        self._betas: list[float] = []
        self._powers: dict[str, Any] = {}
        for number, adam in enumerate(adams):
            if isinstance(adam, Adam):
                self._betas = [adam._beta1, adam._beta2]
                self._powers |= {
                    f"powers/{number}/{index}": power for index, power in enumerate(adam._get_beta_accumulators())
                }
        self.variables = {**self._slots, **self._steps, **self._powers}

    def read(self, session: Any, weights: Mapping[str, Weight]) -> dict[str, Array]:
        """Return the state by ``slot/parameter``, and ``steps`` if the solver counts them."""
        values, steps = session.run([self._slots, self._steps])
        state = {name: _weight(name, weights).to_neutral(value) for name, value in values.items()}
        return {**state, STEPS: np.array(next(iter(steps.values())))} if steps else state

    def from_neutral(self, state: Mapping[str, Array], weights: Mapping[str, Weight]) -> dict[str, Any]:
        """Return the values of the variables for a state; the inverse of :meth:`read`."""
        steps = int(state.get(STEPS, np.array(0)))
        variable_values: dict[str, Any] = {
            name: _weight(name, weights).from_neutral(state[name], slot.shape.as_list())
            for name, slot in self._slots.items()
        }
        for name in self._powers:
            beta = self._betas[int(name.rpartition("/")[2])]
            # multiplied step by step in float32 as TensorFlow does, so that the powers are bitwise equal to TensorFlow's
            variable_values[name] = np.multiply.accumulate(np.full(steps + 1, beta, np.float32))[-1]
        return {**variable_values, **dict.fromkeys(self._steps, steps)}


def _weight(name: str, weights: Mapping[str, Weight]) -> Weight:
    """Return the weight of the parameter in ``slot/parameter``."""
    return weights[name.partition("/")[2]]
