"""The comparisons of one side with the reference: forward, gradients, and steps of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from multiseg import reference
from multiseg.errors import MultisegError
from multiseg.loop import step_seed
from multiseg.network import NetworkSpec
from multiseg.parity.explanation import of_gradient, of_layer, of_step
from multiseg.parity.plan import Batch, Plan
from multiseg.parity.result import Row
from multiseg.parity.side import Side
from multiseg.parity.twin import scores_of
from multiseg.reference.bounded import Array, Bounded, U
from multiseg.reference.losses import by_element, cross_entropy
from multiseg.reference.solvers import Solver
from multiseg.topology import Topology

STRETCH = 2.0**40  # a rate so large that weights are nothing beside their update, which is the gradient then
Weights = Mapping[str, Array]


@dataclass(frozen=True)
class Loss:
    """What training goes by: a named loss, or (None) the file's own, which the reference knows where it is the cross entropy of
    class numbers."""

    name: str | None
    classes: bool
    words: str

    @classmethod
    def of(cls, topology: Topology, name: str | None, classes: bool) -> Loss:
        """``classes``: labels are class numbers."""
        known = topology.loss is None or "entropy" in topology.loss or "class numbers" in topology.loss
        return cls(name, classes and known, topology.loss or "none")

    def at(self, trace: reference.Trace, labels: Array) -> tuple[Bounded, Bounded, reference.Trace]:
        """Value, gradient, and the pass that this is the gradient at the end of. Raises NotComputable."""
        if self.name is not None:
            return *by_element(self.name, trace.output, labels), trace
        if not self.classes:
            raise reference.NotComputable(f"the loss is the file's own ({self.words})")
        scores = scores_of(trace)
        return *cross_entropy(scores.output, labels), scores


def forward(
    side: Side, batch: Batch, own: Weights, weights: Weights, whole: Bounded | None, loss: Loss, mean: object
) -> list[Row]:
    """Every layer from what it was given, the output end to end, and the loss, with the side's ``own`` weights.

    ``whole`` is the reference's output, computed through. Raises NotComputable where a layer is beyond the reference.
    """
    side.set_weights(own)
    last = side.reference.outputs[0]
    try:
        output, measured, made = side.predict(batch.features, batch.labels)
    except (
        MultisegError
    ):  # an output of another size than the labels, perhaps: without them layers can still be told apart
        output, measured, made = side.predict(batch.features, None)
    made.setdefault(last, output)
    trace = reference.forward(side.reference, weights, batch.images, _fitting(side.reference, made))
    rows: list[Row] = []
    for layer in side.reference.layers:
        for name in layer.outputs:
            if name not in made:
                continue
            row = Row.of(side.name, "forward", name, trace.made[name], made[name])
            if not row.ok and all(each.ok for each in rows):
                words = of_layer(trace, layer, made, weights, made[name], mean)
                row = replace(row, words="; ".join(filter(None, [row.words, words])))
            rows.append(row)
    if whole is not None:
        rows.append(Row.of(side.name, "output", last, whole, output))
    if measured is None:
        return rows
    expected, _, _ = loss.at(trace, batch.labels)
    rows.append(Row.of(side.name, "loss", "loss", expected, np.asarray(measured)))
    return rows


def _fitting(topology: Topology, made: Weights) -> dict[str, Array]:
    """What layers made, where it has the shape that it should have."""
    shapes = topology.shapes
    return {name: value for name, value in made.items() if value.shape[1:] == shapes[name]}


def gradients(side: Side, batch: Batch, weights: Weights, loss: Loss) -> list[Row]:
    """Each parameter's gradient, those nearest to the output first. The network must have plain gradient descent as solver.

    A backend is asked for none: one update at a huge rate is the gradient, to the rounding of the update itself.
    """
    side.set_weights(weights)
    expected = _expected(side, batch, weights, loss)
    side.train_step(batch.features, batch.labels, STRETCH, 0)
    after = side.get_weights()
    rows: list[Row] = []
    for name, value in expected.items():
        before = weights[name].astype(np.float64)
        measured = (before - after[name].astype(np.float64)) / STRETCH
        read = 2 * U * (np.abs(before) / STRETCH + value.size)
        row = Row.of(side.name, "gradient", name, replace(value, bound=value.bound + read), measured)
        if not row.ok and all(other.ok for other in rows):
            row = replace(row, words=of_gradient(value, before, measured) or row.words)
        rows.append(row)
    return rows


def _expected(side: Side, batch: Batch, weights: Weights, loss: Loss) -> dict[str, Bounded]:
    """The reference's gradients at these weights: from what the side's layers make where these tell how it trains."""
    if any(layer.type == "BatchNormalization" for layer in side.reference.layers):
        trace = reference.forward(side.reference, weights, batch.images, training=True)
    else:
        output, _, made = side.predict(batch.features, batch.labels)
        made.setdefault(side.reference.outputs[0], output)
        trace = reference.forward(side.reference, weights, batch.images, made)
    _, slope, end = loss.at(trace, batch.labels)
    return reference.backward(end, slope)


def steps(
    side: Side,
    spec: NetworkSpec,
    plan: Plan,
    count: int,
    weights: Weights,
    loss: Loss,
    each: Callable[[int, Weights], None],
) -> list[Row]:
    """The weights after each of ``count`` steps; ends with the first that is beyond rounding.

    A step is judged from the side's own weights before it, with the solver's state that the gradients there have come to, so that
    its tolerance is that of one step and does not grow with what training makes of rounding. ``each`` is told the weights.
    """
    assert spec.solver is not None
    side.load(spec)
    side.set_weights(weights)
    solver = Solver(spec.solver["name"], {key: value for key, value in spec.solver.items() if key != "name"})
    base, seed, rows = plan.entries[0].settings.learning_rate, spec.seed, list[Row]()
    for step in range(count):
        batch = plan.batch(step)
        # the rate falls, so that a solver that keeps it within its momentum is told apart
        rate = float(np.float32(base * (1 - 0.5 * step / count)))
        slopes = _expected(side, batch, weights, loss)
        trained, before = {name: weights[name] for name in slopes}, solver.copy()
        expected = solver.step(trained, slopes, rate)
        side.train_step(batch.features, batch.labels, rate, step_seed(seed, step))
        after = side.get_weights()
        for name, value in expected.items():
            row = Row.of(side.name, "step", name, value, after[name], step + 1)
            if not row.ok and np.isfinite(row.share) and all(other.ok for other in rows):
                row = replace(row, words=of_step(before, trained, slopes, rate, name, after[name]))
            rows.append(row)
        weights = after
        each(step + 1, {name: after[name] for name in expected})
        if not all(row.ok for row in rows):
            break
    return rows
