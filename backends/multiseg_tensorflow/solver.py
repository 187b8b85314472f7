"""The training step: gradients of a user's losses, multipliers, gradients gathered over batches, and the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow

from multiseg.errors import ModelError
from multiseg.network import Array, NetworkSpec, factors
from multiseg_tensorflow import equal
from multiseg_tensorflow.graph import UserGraph
from multiseg_tensorflow.solver_state import Adam, Slots

tf = tensorflow.compat.v1

Pairs = list[tuple[Any, Any]]  # of gradient and variable
Settings = Mapping[str, Any]
Run = Callable[[Array, Array, float, int], float]


class Solver:
    """The operations of a training step, to be made in the graph's scope.

    ``gathered`` are variables that hold gradients within a step, where those of several batches are gathered.
    """

    def __init__(self, user: UserGraph, spec: NetworkSpec) -> None:
        assert spec.solver is not None
        self._user, self._spec = user, spec
        self._rate = tf.placeholder(tf.float32, [], "rate")
        self._share = tf.placeholder(tf.float32, [], "share")  # of a step's images that a batch is
        self.gathered: list[Any] = []
        self._names = {variable.ref(): name for name, variable in user.variables.items()}
        self._factors = factors(spec, dict.fromkeys(user.variables, (1.0, 1.0)))
        self._optimizers: dict[float, Any] = {}  # by their multiplier of the rate
        self._movers: dict[str, Any] = {}  # the optimiser of each variable that is moved, by neutral name
        self.trained: dict[str, float] = {}  # and its factor of the rate
        parts = [self._gradients(loss, variables) for loss, variables in user.losses]
        if not any(parts):
            raise ModelError(f"{spec.model}: its loss depends on none of the variables that are to be trained")
        if spec.accumulate == 1:
            # the loss reported is that before the update; and an update while a gradient still reads the variable copies it
            gradients = [gradient for pairs in parts for gradient, _ in pairs]
            with tf.control_dependencies([user.loss, *gradients]):
                self._whole = tf.group(*self._noted(), *[self._apply(pairs) for pairs in parts])
        else:
            self._accumulate(parts)
        momentum = spec.solver.get("momentum", 0.0)
        self.slots = Slots({name: (user.variables[name], self._movers[name]) for name in self.trained}, momentum)

    def _accumulate(self, parts: list[Pairs]) -> None:
        sums = [[(self._sum(variable), variable) for _, variable in pairs] for pairs in parts]
        each = [(kept, g) for pairs, slots in zip(parts, sums) for (g, _), (kept, _) in zip(pairs, slots)]  # noqa: B905
        self._first = tf.group(*self._noted(), *[kept.assign(self._share * g) for kept, g in each])
        self._more = tf.group(*self._noted(), *[kept.assign_add(self._share * g) for kept, g in each])
        self._update = tf.group(*[self._apply([(kept.read_value(), v) for kept, v in pairs]) for pairs in sums])

    def runner(self, session: Any, size: int) -> Run:
        """A function of features, labels, rate and seed that makes one step, of any number of batches of ``size``; its loss."""
        user = self._user
        if self._spec.accumulate == 1:
            whole = session.make_callable([user.loss, self._whole], [user.x, user.y, self._rate, user.seed])
            return lambda features, labels, rate, seed: float(whole(features, labels, rate, seed)[0])
        inputs = [user.x, user.y, self._share, user.seed]
        first, more = (session.make_callable([user.loss, op], inputs) for op in (self._first, self._more))
        update = session.make_callable(self._update, [self._rate])

        def run(features: Array, labels: Array, rate: float, seed: int) -> float:
            total = 0.0
            for number, at in enumerate(range(0, len(features), size)):
                part = slice(at, at + size)
                share = len(features[part]) / len(features)
                gather = more if number else first
                total += share * float(gather(features[part], labels[part], share, (seed + number) % 2**31)[0])
            update(rate)
            return total

        return run

    def _trained(self, variable: Any) -> bool:
        return self._names[variable.ref()] in self._factors

    def _noted(self) -> list[Any]:
        """What layers that are not frozen note of their inputs, e.g. the moving averages of batch normalisation."""
        frozen = [variable.handle for variable in self._user.variables.values() if not self._trained(variable)]
        updates = self._user.graph.get_collection(tf.GraphKeys.UPDATE_OPS)
        return [
            op
            for op in updates
            if not any(given is handle for given in getattr(op, "op", op).inputs for handle in frozen)
        ]

    def _gradients(self, loss: Any, variables: list[Any]) -> Pairs:
        trained = [variable for variable in variables if self._trained(variable)]
        found = zip(tf.gradients(loss, trained), trained) if trained else ()  # noqa: B905 - worker code runs on Python 3.9
        return [(tf.convert_to_tensor(gradient), variable) for gradient, variable in found if gradient is not None]

    def _sum(self, variable: Any) -> Any:
        name = f"gathered/{variable.op.name}"
        self.gathered.append(tf.Variable(tf.zeros(variable.shape), trainable=False, collections=[], name=name))
        return self.gathered[-1]

    def _apply(self, pairs: Pairs) -> Any:
        """The operation that updates the variables once, with weight decay."""
        assert self._spec.solver is not None
        groups: dict[float, Pairs] = {}
        for gradient, variable in self._user.tower.gradientUpdate(pairs):
            if gradient is not None:
                lr, decay = self._factors[self._names[variable.ref()]]
                decay *= self._spec.solver.get("weight_decay", 0.0)
                groups.setdefault(lr, []).append((gradient + decay * variable if decay else gradient, variable))
        optimizers = NEUTRAL if self._spec.recipe == "equal" else OWN
        for factor, group in groups.items():
            if factor not in self._optimizers:
                rate = self._rate if factor == 1 else factor * self._rate
                self._optimizers[factor] = optimizers[self._spec.solver["name"]](self._spec.solver, rate)
            if factor:
                names = [self._names[variable.ref()] for _, variable in group]
                self.trained.update(dict.fromkeys(names, factor))
                self._movers.update({name: self._optimizers[factor] for name in names})
        return tf.group(*[self._optimizers[factor].apply_gradients(group) for factor, group in groups.items()])


def _momentum(s: Settings, rate: Any) -> Any:
    if not s.get("momentum"):
        return tf.train.GradientDescentOptimizer(rate)
    return tf.train.MomentumOptimizer(rate, s["momentum"], use_nesterov=s["name"] == "nesterov")


Make = Callable[[Settings, Any], Any]
OWN: dict[str, Make] = {
    "sgd": _momentum,
    "nesterov": _momentum,
    "adagrad": lambda s, rate: tf.train.AdagradOptimizer(rate, s["initial_accumulator"]),
    "rmsprop": lambda s, rate: tf.train.RMSPropOptimizer(rate, s["rms_decay"], s["momentum"], s["delta"]),
    "adadelta": lambda s, rate: tf.train.AdadeltaOptimizer(rate, s["momentum"], s["delta"]),
    "adam": lambda s, rate: Adam(rate, s["momentum"], s["momentum2"], s["delta"]),
    "ftrl": lambda s, rate: tf.train.FtrlOptimizer(
        rate,
        initial_accumulator_value=s["initial_accumulator"],
        l1_regularization_strength=s["l1"],
        l2_regularization_strength=s["l2"],
    ),
}
NEUTRAL: dict[str, Make] = {
    "sgd": _momentum,
    "nesterov": _momentum,
    "adagrad": lambda s, rate: equal.AdaGrad(rate, s["delta"]),
    "rmsprop": lambda s, rate: equal.RMSProp(rate, s["rms_decay"], s["delta"]),
    "adadelta": OWN["adadelta"],
    "adam": lambda s, rate: equal.Adam(rate, s["momentum"], s["momentum2"], s["delta"]),
}
