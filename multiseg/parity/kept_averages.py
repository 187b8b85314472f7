"""Compare the averages that batch normalisation keeps, after each training step, with float64."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from multiseg import reference
from multiseg.parity.comparing import BATCH_STATISTICS, Weights
from multiseg.parity.rows import ParityRow
from multiseg.parity.side import ParitySide
from multiseg.reference.averages import AverageRule, statistic, updated
from multiseg.reference.bounded import TINY, Array, Bounded, exact
from multiseg.topology import Layer
from multiseg.topology.vocabulary import VOCABULARY

STATISTICS = ("running_mean", "running_var")


def rows(
    side: ParitySide, trace: reference.Trace, before: Weights, after: Weights, number: int
) -> Iterator[ParityRow]:  # fmt: skip
    """Yield a row for each average after training step ``number``, from 1.

    ``before`` and ``after`` are the side's weights before and after the step, ``trace`` is the reference's pass. Averages whose
    rule the framework does not state have no row. Layers that normalise by their averages in training too must keep them.
    """
    uses = Counter(layer.name for layer in trace.topology.layers if layer.type in BATCH_STATISTICS)
    values: dict[str, Bounded] = {}
    updates: dict[str, list[tuple[AverageRule, Bounded, float]]] = {}
    for layer in trace.topology.layers:
        if layer.type not in BATCH_STATISTICS:
            continue
        parameters = VOCABULARY[layer.type].complete(layer.parameters)
        # averages that nothing reads; Caffe updates them in prediction too
        if parameters["prediction_statistics"] == "batch":
            continue
        kept = parameters["training_statistics"] == "stored"
        for part in STATISTICS:
            name = f"{layer.name}.{part}"
            if part not in layer.weights or (name not in side.averages and not (kept and name in side.known)):
                continue
            average = values.setdefault(name, exact(before[name]))
            if kept:
                continue
            rule, done = _rule(layer, side.averages[name]), updates.setdefault(name, [])
            batch = statistic(trace.values[layer.inputs[0]], part, rule.unbiased)
            weight = rule.weight((number - 1) * uses[layer.name] + len(done) + 1)
            values[name] = updated(average, batch, weight)
            done.append((rule, batch, weight))
    for name, value in values.items():
        row = ParityRow.of(side.name, "step", name, value, after[name], number)
        yield row if row.ok else replace(row, words=_words(before[name], after[name], updates.get(name, [])))


def _rule(layer: Layer, stated: AverageRule) -> AverageRule:
    """Return the framework's rule with the momentum of the description, if that has one."""
    momentum = layer.parameters.get("momentum")
    if momentum is None:
        return stated
    return replace(stated, rule="cumulative") if momentum == "cumulative" else replace(stated, momentum=momentum)


def _words(before: Array, after: Array, updates: list[tuple[AverageRule, Bounded, float]]) -> str | None:
    """Describe an average that differs, None if no common mistake explains it."""
    if np.array_equal(before, after):
        return "it does not change at all"
    if not updates:
        return "it changes, although the layer normalises by it in training"
    if len(updates) > 1:
        return None
    (rule, batch, weight), old = updates[0], exact(before)
    if batch.terms > 1:
        factor = batch.terms / (batch.terms - 1)
        other = 1 / factor if rule.unbiased else factor
        scaled = Bounded(batch.value * other, batch.bound * other, batch.terms)
        if _agrees(updated(old, scaled, weight), after):
            return f"it agrees with the {'biased' if rule.unbiased else 'unbiased'} variance of the batch"
    change = batch.value - old.value
    fitted = float((after - old.value) @ change) / max(float(change @ change), TINY)
    if 0 < fitted <= 1 and _agrees(updated(old, batch, fitted), after):
        return f"it agrees with the weight {fitted:.3g} of the batch (here {weight:.3g})"
    return None


def _agrees(expected: Bounded, measured: Array) -> bool:
    return bool((np.abs(measured - expected.value) <= np.asarray(expected.bound) + TINY).all())
