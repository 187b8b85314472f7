"""What TensorFlow's optimisers keep of each variable, under neutral names (docs/solvers.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow

from multiseg.network import STEPS, Array
from multiseg_tensorflow import equal
from multiseg_tensorflow.weights import Weight

tf = tensorflow.compat.v1
TheirAdam: Any = tf.train.AdamOptimizer


class Adam(TheirAdam):
    """TensorFlow's own, with a count of its steps: the powers of its betas, which it keeps, soon no longer tell it."""

    def _create_slots(self, variables: list[Any]) -> None:
        super()._create_slots(variables)
        equal.make_steps(self, variables)

    def _finish(self, updates: list[Any], name: str) -> Any:
        return tf.group(super()._finish(updates, name), equal.steps_of(self).assign_add(1))


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
    """The state of a network's optimisers; ``variables`` are all that hold it."""

    def __init__(self, trained: Mapping[str, tuple[Any, Any]], momentum: float) -> None:
        """``trained`` are variables by their neutral names, each with its optimiser, whose momentum is given."""
        self._slots = {
            f"{slot}/{name}": optimizer.get_slot(variable, own)
            for name, (variable, optimizer) in trained.items()
            for own, slot in SLOTS[type(optimizer)].items()
            if momentum or slot != "displacement"  # at a momentum of 0 nothing of it stays
        }
        optimizers = list(dict.fromkeys(optimizer for _, optimizer in trained.values()))
        counting = [each for each in optimizers if isinstance(each, (Adam, equal.Adam))]
        self._steps = {f"{STEPS}/{number}": equal.steps_of(each) for number, each in enumerate(counting)}
        self._betas: list[float] = []
        self._powers: dict[str, Any] = {}
        for number, each in enumerate(counting):
            if isinstance(each, Adam):
                self._betas = [each._beta1, each._beta2]
                self._powers |= {
                    f"powers/{number}/{at}": power for at, power in enumerate(each._get_beta_accumulators())
                }
        self.variables = {**self._slots, **self._steps, **self._powers}

    def read(self, session: Any, weights: Mapping[str, Weight]) -> dict[str, Array]:
        """The state by ``slot/parameter``, and ``steps`` where the rule counts them."""
        values, steps = session.run([self._slots, self._steps])
        found = {name: _weight(name, weights).neutral(value) for name, value in values.items()}
        return {**found, STEPS: np.array(next(iter(steps.values())))} if steps else found

    def own(self, state: Mapping[str, Array], weights: Mapping[str, Weight]) -> dict[str, Any]:
        """The inverse of :meth:`read`: values of the variables."""
        steps = int(state.get(STEPS, np.array(0)))
        found: dict[str, Any] = {
            name: _weight(name, weights).own(state[name], slot.shape.as_list()) for name, slot in self._slots.items()
        }
        for name in self._powers:
            beta = self._betas[int(name.rpartition("/")[2])]
            # multiplied as TensorFlow does it, step by step in float32, so that they are its own to the bit
            found[name] = np.multiply.accumulate(np.full(steps + 1, beta, np.float32))[-1]
        return {**found, **dict.fromkeys(self._steps, steps)}


def _weight(name: str, weights: Mapping[str, Weight]) -> Weight:
    """Of the parameter in ``slot/parameter``."""
    return weights[name.partition("/")[2]]
