"""Where the histories of runs part that should be the same: one seed and one recipe `equal` in several backends."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from multiseg.pages.numbers import significant
from multiseg.report.agreement import FREE
from multiseg.report.facts import RunFacts
from multiseg.settings.metrics import LOSS, METRICS, SCORES, TRAINING_LOSS

APART = 1e-3  # relative difference above which histories have parted; that of one float32 operation is 6e-8
QUANTITIES = ("learning_rate", *(metric.key for metric in SCORES))


@dataclass(frozen=True)
class Deviation:
    """The difference of a ``quantity`` in one row of two histories, relative to the larger absolute value.

    Infinite if only one value is finite.
    """

    epoch: float
    iteration: int
    quantity: str
    values: tuple[float, float]
    relative: float

    def __str__(self) -> str:
        title = METRICS[self.quantity].title if self.quantity in METRICS else self.quantity.replace("_", " ")
        values = f"{significant(self.values[0], 5)} and {significant(self.values[1], 5)}"
        return f"after iteration {self.iteration} (epoch {self.epoch:g}): {title} {values}"


@dataclass(frozen=True)
class Parting:
    """Two runs of one seed: the ``first`` row in which a quantity differs by more than APART, None if there is none.

    ``before`` is the largest difference in earlier rows, or without ``first`` in all rows; None if there are none.
    """

    runs: tuple[RunFacts, RunFacts]
    first: Deviation | None
    before: Deviation | None

    def __str__(self) -> str:
        one, other = (each.label for each in self.runs)
        until = (
            f"; until then by at most {percent(self.before.relative)}" if self.before and self.before.relative else ""
        )
        if self.first is not None:
            apart = percent(self.first.relative)
            return f"{one} and {other} part {self.first}, which differ by {apart}{until}"
        if self.before is None or not self.before.relative:
            return f"{one} and {other} have the same history"
        largest = f"at most {percent(self.before.relative)}, {self.before}"
        return f"{one} and {other} do not part: no quantity differs by more than {percent(APART)} ({largest})"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain values for JSON."""
        return {
            "runs": [each.label for each in self.runs],
            "parts": self.first is not None,
            "first": _plain(self.first),
            "before": _plain(self.before),
            "text": str(self),
        }


def partings(facts: Sequence[RunFacts]) -> list[Parting]:
    """Return one result for each run of the recipe `equal`, beside the first run of the same seed and settings."""
    groups: dict[str, list[RunFacts]] = {}
    for each in facts:
        if each.run.settings.get("recipe") == "equal" and each.run.settings.get("seed") is not None:
            groups.setdefault(_key(each), []).append(each)
    return [_parting(runs[0], other) for runs in groups.values() for other in runs[1:]]


def percent(relative: float) -> str:
    """Return a relative difference, as in "0.1 %"."""
    return f"{significant(100 * relative, 2)} %" if math.isfinite(relative) else "infinity"


def _key(facts: RunFacts) -> str:
    """Return a text that is equal for runs that differ only in backend and in what does not affect results."""
    settings = {key: value for key, value in facts.run.settings.items() if key not in FREE or key == "seed"}
    return json.dumps([facts.content, facts.shapes, settings], sort_keys=True)


def _parting(one: RunFacts, other: RunFacts) -> Parting:
    before: Deviation | None = None
    for deviations in _rows(one, other):
        widest = max(deviations, key=lambda each: each.relative, default=None)
        if widest is not None and widest.relative > APART:
            # of one row, in the order of the columns: a loss before the metrics that follow from it
            return Parting((one, other), next(each for each in deviations if each.relative > APART), before)
        if widest is not None and (before is None or widest.relative > before.relative):
            before = widest
    return Parting((one, other), None, before)


def _rows(one: RunFacts, other: RunFacts) -> Iterator[list[Deviation]]:
    """Yield the differences in each row that both histories have, without losses in different units."""
    rows = {(row["epoch"], row["iteration"]): row for row in other.run.history}
    comparable = [key for key in QUANTITIES if one.loss_unit == other.loss_unit or key not in (TRAINING_LOSS, LOSS)]
    for row in one.run.history:
        partner = rows.get((row["epoch"], row["iteration"]))
        if partner is None:
            continue
        pairs = [(key, row.get(key), partner.get(key)) for key in comparable]
        yield [
            Deviation(row["epoch"], row["iteration"], key, (float(value), float(another)), _relative(value, another))
            for key, value, another in pairs
            if value is not None and another is not None
        ]


def _relative(one: float, other: float) -> float:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return 0.0
    if not (math.isfinite(one) and math.isfinite(other)):
        return math.inf
    return abs(one - other) / max(abs(one), abs(other))


def _plain(deviation: Deviation | None) -> dict[str, Any] | None:
    if deviation is None:
        return None
    return {
        "epoch": deviation.epoch,
        "iteration": deviation.iteration,
        "quantity": deviation.quantity,
        "values": [value if math.isfinite(value) else None for value in deviation.values],
        "relative": deviation.relative if math.isfinite(deviation.relative) else None,
    }
