"""The training step: gradients of the losses, learning rate multipliers, gradient accumulation, and the update."""

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
    """The operations of a training step; create it with the graph as default graph.

    ``earlier`` is another solver of the graph, of a specification that differs in the solver alone; its gradients are used.
    ``parts`` are the gradients of each loss with their variables. ``accumulators`` are the variables that accumulate the
    gradients of the batches of a step, if there are several. ``trained`` are the learning rate multipliers of the trained
    variables by neutral name.
    """

    parts: list[Pairs]

    def __init__(self, user: UserGraph, spec: NetworkSpec, earlier: Solver | None = None) -> None:
        assert spec.solver is not None
        self._user, self._spec = user, spec
        self._rate = tf.placeholder(tf.float32, [], "rate")
        self._fraction = tf.placeholder(tf.float32, [], "share")  # the batch's fraction of the step's images
        self.accumulators: list[Any] = []
        self._names = {variable.ref(): name for name, variable in user.variables.items()}
        self._factors = factors(spec, dict.fromkeys(user.variables, (1.0, 1.0)))
        self._optimizers: dict[float, Any] = {}  # by learning rate multiplier
        self._optimizer_of: dict[str, Any] = {}  # by neutral name of the trained variable
        self.trained: dict[str, float] = {}
        parts = earlier.parts if earlier else [self._gradients(loss, variables) for loss, variables in user.losses]
        self.parts = parts
        if not any(parts):
            raise ModelError(
                f"{spec.model}: its loss does not depend on any trained variable; train more layers, or change its loss"
            )
        if spec.accumulate == 1:
            # report the loss before the update; updating a variable while a gradient still reads it would copy it
            gradients = [gradient for pairs in parts for gradient, _ in pairs]
            with tf.control_dependencies([user.loss, *gradients]):
                self._single_step = tf.group(*self.update_ops(), *[self._apply(pairs) for pairs in parts])
        else:
            self._build_accumulation(parts)
        momentum = spec.solver.get("momentum", 0.0)
        self.slots = Slots({name: (user.variables[name], self._optimizer_of[name]) for name in self.trained}, momentum)

    def _build_accumulation(self, parts: list[Pairs]) -> None:
        """Create the operations that accumulate the gradients of batches, weighted by their fractions, and update once."""
        sums = [[(self._accumulator(variable), variable) for _, variable in pairs] for pairs in parts]
        terms = [(total, g) for pairs, slots in zip(parts, sums) for (g, _), (total, _) in zip(pairs, slots)]  # noqa: B905
        self._first_batch = tf.group(*self.update_ops(), *[total.assign(self._fraction * g) for total, g in terms])
        self._accumulate_batch = tf.group(
            *self.update_ops(), *[total.assign_add(self._fraction * g) for total, g in terms]
        )
        self._update = tf.group(*[self._apply([(total.read_value(), v) for total, v in pairs]) for pairs in sums])

    def runner(self, session: Any, size: int) -> Run:
        """Return a function of features, labels, learning rate and seed that runs one step and returns its loss.

        The step accumulates gradients over batches of ``size`` images; the last batch may be smaller.
        """
        user = self._user
        if self._spec.accumulate == 1:
            step = session.make_callable([user.loss, self._single_step], [user.x, user.y, self._rate, user.seed])
            return lambda features, labels, rate, seed: float(step(features, labels, rate, seed)[0])
        inputs = [user.x, user.y, self._fraction, user.seed]
        operations = (self._first_batch, self._accumulate_batch)
        first, following = (session.make_callable([user.loss, op], inputs) for op in operations)
        update = session.make_callable(self._update, [self._rate])

        def run(features: Array, labels: Array, rate: float, seed: int) -> float:
            total = 0.0
            for number, start in enumerate(range(0, len(features), size)):
                batch = slice(start, start + size)
                fraction = len(features[batch]) / len(features)
                accumulate = following if number else first
                (loss, _) = accumulate(features[batch], labels[batch], fraction, (seed + number) % 2**31)
                total += fraction * float(loss)
            update(rate)
            return total

        return run

    def _is_trained(self, variable: Any) -> bool:
        return self._names[variable.ref()] in self._factors

    def update_ops(self) -> list[Any]:
        """Return the update operations of layers that are not frozen, e.g. the moving averages of batch normalisation."""
        frozen = [variable.handle for variable in self._user.variables.values() if not self._is_trained(variable)]
        updates = self._user.graph.get_collection(tf.GraphKeys.UPDATE_OPS)
        return [
            op
            for op in updates
            if not any(tensor is handle for tensor in getattr(op, "op", op).inputs for handle in frozen)
        ]

    def _gradients(self, loss: Any, variables: list[Any]) -> Pairs:
        """Return the gradients of a loss with respect to those of ``variables`` that are trained and that it depends on."""
        trained = [variable for variable in variables if self._is_trained(variable)]
        pairs = zip(tf.gradients(loss, trained), trained) if trained else ()  # noqa: B905 - worker code runs on Python 3.9
        return [(tf.convert_to_tensor(gradient), variable) for gradient, variable in pairs if gradient is not None]

    def _accumulator(self, variable: Any) -> Any:
        """Create the variable that accumulates the gradient of ``variable``."""
        name = f"accumulators/{variable.op.name}"
        self.accumulators.append(tf.Variable(tf.zeros(variable.shape), trainable=False, collections=[], name=name))
        return self.accumulators[-1]

    def _apply(self, pairs: Pairs) -> Any:
        """Return the operation that updates the variables once, with weight decay."""
        assert self._spec.solver is not None
        groups: dict[float, Pairs] = {}
        for gradient, variable in self._user.tower.gradientUpdate(pairs):
            if gradient is not None:
                lr, decay = self._factors[self._names[variable.ref()]]
                decay *= self._spec.solver.get("weight_decay", 0.0)
                groups.setdefault(lr, []).append((gradient + decay * variable if decay else gradient, variable))
        optimizers = EQUAL if self._spec.recipe == "equal" else DEFAULT
        for factor, group in groups.items():
            if factor not in self._optimizers:
                rate = self._rate if factor == 1 else factor * self._rate
                self._optimizers[factor] = optimizers[self._spec.solver["name"]](self._spec.solver, rate)
            if factor:
                names = [self._names[variable.ref()] for _, variable in group]
                self.trained.update(dict.fromkeys(names, factor))
                self._optimizer_of.update({name: self._optimizers[factor] for name in names})
        return tf.group(*[self._optimizers[factor].apply_gradients(group) for factor, group in groups.items()])


def _momentum(s: Settings, rate: Any) -> Any:
    if not s.get("momentum"):
        return tf.train.GradientDescentOptimizer(rate)
    return tf.train.MomentumOptimizer(rate, s["momentum"], use_nesterov=s["name"] == "nesterov")


MakeOptimizer = Callable[[Settings, Any], Any]
DEFAULT: dict[str, MakeOptimizer] = {
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
EQUAL: dict[str, MakeOptimizer] = {
    "sgd": _momentum,
    "nesterov": _momentum,
    "adagrad": lambda s, rate: equal.AdaGrad(rate, s["delta"]),
    "rmsprop": lambda s, rate: equal.RMSProp(rate, s["rms_decay"], s["delta"]),
    "adadelta": DEFAULT["adadelta"],
    "adam": lambda s, rate: equal.Adam(rate, s["momentum"], s["momentum2"], s["delta"]),
}
