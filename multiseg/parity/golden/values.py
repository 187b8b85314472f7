"""Compute what a golden file keeps, and compare the file with what this version of multiseg computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg import reference
from multiseg.parity.comparing import Loss, Weights, slopes_alone
from multiseg.parity.plan import ParityBatch
from multiseg.parity.reference_values import ReferenceValues
from multiseg.parity.rows import ParityRow
from multiseg.parity.stepping import rate_of
from multiseg.parity.twin import without_dropout
from multiseg.reference.bounded import Array, Bounded, U
from multiseg.reference.solvers import Solver
from multiseg.topology import Topology

# float64's unit roundoff over float32's: a bound of float32's rounding times this is one of float64's
FINER = 2.0**-29
SLACK = 4.0  # both values that are compared are rounded, and second-order terms
NUDGE = 2.0**-40  # relative change of weights that measures how much a training amplifies rounding
CHAOS = 100.0  # ratio of two differences of a training that amplifies them until they are as large as the weights
# where maxima are equal but for the rounding of float64, their places differ between machines
PLACES = "MaxUnpool"
WIDER = 1.01  # ratio of the tolerances of two versions from which a note names it


@dataclass(frozen=True)
class Recipe:
    """What the reference computes from: network, initial weights, which of them are trained, batches, loss and training.

    ``batch`` returns the batch of a step, from 0; ``loss`` that of a network, ``solver`` has ``name`` and the solver's options.
    """

    topology: Topology
    weights: Weights
    trained: Collection[str]
    batch: Callable[[int], ParityBatch]
    loss: Callable[[Topology], Loss]
    solver: Mapping[str, Any]
    learning_rate: float
    steps: int


def computed(recipe: Recipe, progress: Callable[[str], None] = lambda text: None) -> ReferenceValues:
    """Compute everything in float64. Raises NotComputable if the forward pass has a layer beyond the vocabulary."""
    with np.errstate(all="ignore"):
        batch = recipe.batch(0)
        trace = reference.forward(recipe.topology, recipe.weights, batch.images)
        loss: list[Bounded] = []
        gradients: dict[str, Bounded] = {}
        try:
            loss = recipe.loss(recipe.topology).at(trace, batch.labels)[0]
            twin, _ = without_dropout(recipe.topology)
            slopes = slopes_alone(twin, recipe.weights, batch, recipe.loss(twin))
            gradients = {name: value for name, value in slopes.items() if name in recipe.trained}
            after = _trained(recipe, twin, recipe.weights, progress)
        except reference.NotComputable as error:
            return ReferenceValues(trace.computed, loss, gradients, {}, str(error))
    return ReferenceValues(trace.computed, loss, gradients, after)


def _trained(recipe: Recipe, twin: Topology, weights: Weights, progress: Callable[[str], None]) -> dict[str, Array]:
    """Return the trained weights after the last step, float64; empty without steps."""
    solver = Solver(recipe.solver["name"], {key: value for key, value in recipe.solver.items() if key != "name"})
    loss, current, moved = recipe.loss(twin), dict(weights), dict[str, Array]()
    for step in range(recipe.steps):
        progress(f"the reference, step {step + 1} of {recipe.steps}")
        slopes = slopes_alone(twin, current, recipe.batch(step), loss)
        trained = {name: current[name] for name in slopes if name in recipe.trained}
        rate = rate_of(recipe.learning_rate, step, recipe.steps)
        moved = {name: value.value for name, value in solver.step(trained, slopes, rate).items()}
        if not all(np.isfinite(value).all() for value in moved.values()):
            raise reference.NotComputable(f"weights leave the range of numbers at step {step + 1}")
        current.update(moved)
    return moved


def compared(side: str, stored: ReferenceValues, recipe: Recipe) -> tuple[list[ParityRow], list[str]]:
    """Compute the values of a file again; return a row for each of them, and notes. ``side`` names the file in the rows.

    A row is beyond its tolerance if this version of multiseg computes something else than the version that wrote the file. The
    tolerance is that of float32 times FINER, thus float64's rounding; for the weights after the last step it is float32's
    precision, because training amplifies rounding.
    """
    try:
        again = computed(recipe)
    except reference.NotComputable as error:
        return [ParityRow.wrong(side, "reference", "the forward pass", f"is not computed: {error}")], []
    finer = 1.0 if any(layer.type == PLACES for layer in recipe.topology.layers) else FINER
    pairs = [(f"layer {name!r}", value, again.layers.get(name)) for name, value in stored.layers.items()]
    pairs += [
        ("the loss", value, again.loss[place] if place < len(again.loss) else None)
        for place, value in enumerate(stored.loss)
    ]
    pairs += [
        (f"the gradient of {name!r}", value, again.gradients.get(name)) for name, value in stored.gradients.items()
    ]
    rows = [_row(side, name, one, other, finer) for name, one, other in pairs]
    stepped = {name: _stepped(side, recipe.steps, name, value, again) for name, value in stored.weights.items()}
    notes = _widened(stored, again)
    if not all(row.ok for row in stepped.values()) and all(row.ok for row in rows):
        amplified = _amplified(recipe)
        unsure = [
            name for name, row in stepped.items() if not row.ok and row.absolute <= CHAOS * amplified.get(name, 0)
        ]
        if unsure:
            notes.append(
                f"weights after {recipe.steps} steps are not compared with the file, because this training amplifies the "
                f"rounding of float64 itself to differences of up to {max(stepped[name].absolute for name in unsure):.2g}"
            )
        stepped = {name: row for name, row in stepped.items() if name not in unsure}
    return [*rows, *stepped.values()], notes


def _row(side: str, name: str, stored: Bounded, again: Bounded | None, finer: float) -> ParityRow:
    if again is None:
        return ParityRow.wrong(side, "reference", name, "is not computed")
    allowed = SLACK * (finer * np.broadcast_to(stored.bound, stored.value.shape) + 2.0**-53 * stored.size)
    return ParityRow.of(side, "reference", name, Bounded(stored.value, allowed), again.value)


def _stepped(side: str, steps: int, name: str, stored: Array, again: ReferenceValues) -> ParityRow:
    title = f"the weights {name!r} after {steps} step{'s' * (steps != 1)}"
    if name not in again.weights:
        return ParityRow.wrong(side, "reference", title, "is not computed")
    allowed = np.full(stored.shape, U * float(np.abs(stored).max(initial=0)))
    return ParityRow.of(side, "reference", title, Bounded(stored, allowed), again.weights[name])


def _amplified(recipe: Recipe) -> dict[str, float]:
    """Return the largest change of each parameter after the last step if the initial weights change by NUDGE."""
    twin, _ = without_dropout(recipe.topology)
    draw = np.random.default_rng(1)
    nudged = {
        name: value.astype(np.float64) * (1 + NUDGE * draw.choice((-1, 1), value.shape))
        for name, value in recipe.weights.items()
    }
    try:
        with np.errstate(all="ignore"):
            one, other = (_trained(recipe, twin, weights, lambda text: None) for weights in (recipe.weights, nudged))
    except reference.NotComputable:
        return {}
    return {name: float(np.abs(one[name] - other[name]).max(initial=0)) for name in one}


def _widened(stored: ReferenceValues, again: ReferenceValues) -> list[str]:
    """Return a note if the tolerances of this version differ from those in the file."""
    ratios = {
        name: float(np.sum(ours[name].bound) / np.sum(theirs[name].bound))
        for theirs, ours in ((stored.layers, again.layers), (stored.gradients, again.gradients))
        for name in theirs
        if name in ours and np.sum(theirs[name].bound) > 0 and np.isfinite(np.sum(theirs[name].bound))
    }
    changed = {name: ratio for name, ratio in ratios.items() if not 1 / WIDER <= ratio <= WIDER}
    if not changed:
        return []
    name = max(changed, key=lambda key: abs(np.log(changed[key])))
    return [
        f"this version of multiseg derives other tolerances than those in the file, for {name!r} {changed[name]:.3g} times as "
        "wide; end to end, the file's are used"
    ]
