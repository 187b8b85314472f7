"""Compare training steps of one side with the reference: weights, and the averages that batch normalisation keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from multiseg import reference
from multiseg.network import NetworkSpec
from multiseg.parity import dropout, kept_averages
from multiseg.parity.comparing import (
    Loss,
    Pass,
    Weights,
    after_step,
    agreeing,
    gradients,
    passes,
    passes_with,
    shown_by,
)
from multiseg.parity.explanation import of_step
from multiseg.parity.plan import ParityBatch
from multiseg.parity.rows import ParityRow
from multiseg.parity.side import ParitySide
from multiseg.reference import gradient
from multiseg.reference.bounded import FLOAT32, computed_in
from multiseg.reference.solvers import Solver
from multiseg.training.steps import step_seed


def steps(
    side: ParitySide,
    spec: NetworkSpec,
    batch_of: Callable[[int], ParityBatch],
    base: float,
    count: int,
    weights: Weights,
    loss: Loss,
    each: Callable[[int, Weights], None],
    drops: bool = False,
) -> list[ParityRow]:
    """Compare the weights after each of ``count`` training steps; stops after the first step that differs beyond rounding.

    So are the averages that batch normalisation keeps, by the rule that the framework states (multiseg.network.Network.describe).

    The reference computes each step from the side's own weights before it, with a solver state accumulated from the gradients
    there. The tolerance is therefore that of one step, without the rounding that training amplifies. ``batch_of`` returns the
    batch of a step (from 0), ``base`` is the learning rate of the first one. ``each`` is called with step (from 1) and weights.
    ``drops``: with what the side's dropouts draw in each step, which is compared as well.
    Raises NotComputable if the weights leave the range of float32.
    """
    assert spec.solver is not None
    side.load(spec)
    side.set_weights(weights)
    solver = Solver(spec.solver["name"], {key: value for key, value in spec.solver.items() if key != "name"})
    seed, rows = spec.seed, list[ParityRow]()
    for step in range(count):
        batch = batch_of(step)
        rate = rate_of(base, step, count)
        if drops:
            factors, values = dropout.draw(side, batch, step_seed(seed, step)) or ({}, {})
            rows += dropout.rows(side.name, side.reference, factors, step + 1)
            if not all(row.ok for row in rows):
                break
            alternatives = passes_with(dropout.drawn(side.reference, factors, values), side, weights, batch, loss)
        else:
            alternatives = passes(side, weights, batch, shown_by(side, batch), loss)
        after, alternatives = after_step(side, batch, rate, step_seed(seed, step), alternatives)
        after = {**weights, **after}  # a file may lack parameters that do not count, such as unused averages
        judge = _Step(side, step + 1, solver, weights, after, rate)
        solver, step_rows = agreeing(alternatives, judge.rows)
        rows += [replace(row, stage=dropout.STAGE) for row in step_rows] if drops else step_rows
        weights = judge.after
        each(step + 1, {row.name: weights[row.name] for row in step_rows if row.name in side.trained})
        if not all(row.ok for row in rows):
            break
        if not all(np.isfinite(value).all() for value in weights.values()):
            raise reference.NotComputable(
                f"weights leave the range of float32 at step {step + 1}, in the reference too; choose a learning rate below "
                f"{rate:.3g}"
            )
    return rows


def with_dropout(
    side: ParitySide, spec: NetworkSpec, batch_of: Callable[[int], ParityBatch], base: float, count: int, weights: Weights,
    loss: Loss,
) -> list[ParityRow] | None:  # fmt: skip
    """Compare the training of a network with dropout, in the side's own file; None if the framework does not state what it draws.

    Compared are the factors of each dropout, the gradients with them, and the weights after each of ``count`` steps with further
    ones. ``spec`` has the solver of the steps.
    """
    side.load(replace(spec, solver=gradient.SOLVER))
    side.set_weights(weights)
    batch = batch_of(0)
    drawn = dropout.draw(side, batch, 0)
    if drawn is None:
        return None
    factors, values = drawn
    rows = dropout.rows(side.name, side.reference, factors)
    if all(row.ok for row in rows):
        rows += gradients(side, batch, weights, loss, draws=dropout.drawn(side.reference, factors, values))
    if count and all(row.ok for row in rows):
        rows += steps(side, spec, batch_of, base, count, weights, loss, lambda step, weights: None, drops=True)
    return rows


def rate_of(base: float, step: int, count: int) -> float:
    """Return the learning rate of a step of ``count``, from 0.

    It decreases, so that a solver that includes it in the momentum gives a different result.
    """
    return float(np.float32(base * (1 - 0.5 * step / count)))


@dataclass(frozen=True)
class _Step:
    """One training step of a side: its weights before and after it, and the solver before it."""

    side: ParitySide
    number: int
    solver: Solver
    before: Weights
    after: Weights
    rate: float

    def rows(self, training: Pass) -> tuple[Solver, list[ParityRow]]:
        """Return the solver after the step, and rows that compare the side's weights with the solver's."""
        slopes = training.slopes
        trained, solver = {name: self.before[name] for name in slopes}, self.solver.copy()
        rows: list[ParityRow] = []
        with computed_in(FLOAT32):  # in every precision of the network
            updated = solver.step(trained, slopes, self.rate)
        for name, value in updated.items():
            row = ParityRow.of(self.side.name, "step", name, value, self.after[name], self.number)
            if not row.ok and np.isfinite(row.share) and all(other.ok for other in rows):
                row = replace(row, words=of_step(self.solver, trained, slopes, self.rate, name, self.after[name]))
            rows.append(row)
        return solver, [*rows, *kept_averages.rows(self.side, training.trace, self.before, self.after, self.number)]
