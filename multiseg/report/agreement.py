"""Compare the difference between backends with the difference between seeds of one backend.

Both are the difference between the largest and the smallest value: over backends at one seed, over seeds of one backend.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from multiseg.errors import SettingsError
from multiseg.pages.numbers import number, significant
from multiseg.report.facts import RunFacts
from multiseg.settings.metrics import LOSS, METRICS, SELECTING, Metric
from multiseg.settings.resolved import OF_MACHINE
from multiseg.settings.step import DEFAULTS
from multiseg.topology.words import listed

MEASURED = SELECTING
# settings in which compared runs may differ: backend, its network file, seed, and settings that do not affect results
FREE = {
    "backend", "model", "exported", "seed", "device", *OF_MACHINE, "lowering", "compile", "snapshot_interval", "keep",
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """The differences between backends and between seeds in a metric after one epoch."""

    epoch: float
    gap: float
    """The largest difference between backends at one seed."""
    seed: int
    between: tuple[RunFacts, RunFacts]
    """The runs with the smallest and the largest value at that seed."""
    relative: float
    """The gap as a fraction of the mean absolute value, 0 if that is 0."""
    spread: float
    """The difference between the largest and the smallest value over the seeds."""
    deviation: float
    """The sample standard deviation over the seeds (divisor n - 1)."""

    @property
    def ratio(self) -> float | None:
        """The gap as a multiple of the spread; None if all seeds are equal but backends differ."""
        if self.spread == 0:
            return None if self.gap else 0.0
        return self.gap / self.spread

    def within(self, factor: float) -> bool:
        """Return whether the gap is at most ``factor`` times the spread."""
        return self.gap <= factor * self.spread * (1 + 1e-9)


@dataclass(frozen=True)
class Measure:
    """A metric at the end, and at the epoch with the largest relative difference between backends."""

    metric: Metric
    last: Point
    widest: Point

    @property
    def points(self) -> tuple[Point, ...]:
        """Both points, or one if they are the same epoch."""
        return (self.last,) if self.last.epoch == self.widest.epoch else (self.last, self.widest)


@dataclass(frozen=True)
class Agreement:
    """The comparison of runs that differ only in backend and seed. ``judge``: runs of the backend whose seeds are compared."""

    runs: tuple[RunFacts, ...]
    judge: tuple[RunFacts, ...]
    shared: tuple[int, ...]
    """The seeds that several backends were trained with."""
    measures: tuple[Measure, ...]
    """One for every metric of which all runs have a finite final value."""
    missing: tuple[str, ...]
    """One line for each run without a finite value of a metric that other runs have."""

    @property
    def backends(self) -> list[str]:
        """The names of the backends."""
        return list(dict.fromkeys(facts.run.backend for facts in self.runs))

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs in ``judge``."""
        return [facts.run.settings["seed"] for facts in self.judge]

    @property
    def basis(self) -> str:
        """One sentence: which differences are compared."""
        return (
            f"Between {_title(self.runs)} at the same seed ({', '.join(map(str, self.shared))}), and between "
            f"{len(self.judge)} seeds of {_title(self.judge)} ({', '.join(map(str, self.seeds))}), with the same settings "
            "otherwise: the largest less the smallest value."
        )

    @property
    def headline(self) -> str:
        """One sentence: whether backends differ by less than seeds."""
        if not self.measures:
            return "Not every run has figures at the end, so backends cannot be compared."
        worst = max(self.measures, key=lambda measure: math.inf if measure.last.ratio is None else measure.last.ratio)
        more = ", ".join(_inside(measure.metric) for measure in self.measures if not measure.last.within(1))
        if worst.last.ratio is None:
            return f"At the end backends differ by more than seeds do in {more}, and seeds not at all in {_inside(worst.metric)}."
        if more:
            return f"At the end backends differ by more than seeds do in {more}: {times(worst.last)} in {_inside(worst.metric)}."
        if not worst.last.ratio:
            return "At the end backends do not differ at all."
        return f"At the end backends differ by less than seeds do: {times(worst.last)} in {_inside(worst.metric)}, where most."

    def failures(self, factor: float) -> list[str]:
        """Return one line for every metric in which backends differ by more than ``factor`` times as much as seeds, at the end or
        at the epoch with the largest difference; and one for every missing value."""
        return [
            *self.missing,
            *(
                f"{measure.metric.key} after epoch {point.epoch:g}: backends differ by {point.gap:.4g} at seed {point.seed} "
                f"({' and '.join(each.label for each in point.between)}), seeds of {_title(self.judge)} by {point.spread:.4g}; "
                f"at most {factor:g} times as much allowed"
                for measure in self.measures
                for point in measure.points
                if not point.within(factor)
            ),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values for JSON."""
        return {
            "headline": self.headline,
            "backends": self.backends,
            "runs": [facts.label for facts in self.runs],
            "seeds_of": self.judge[0].run.backend,
            "seeds": self.seeds,
            "missing": list(self.missing),
            "metrics": {
                measure.metric.key: {"last": _plain(measure.last), "widest": _plain(measure.widest)}
                for measure in self.measures
            },
        }


def times(point: Point) -> str:
    """Return the gap as a multiple of the spread, in words."""
    return "where seeds do not" if point.ratio is None else f"{significant(point.ratio, 2)} times as much"


def agreement(facts: Sequence[RunFacts]) -> Agreement:
    """Return the comparison of backends and seeds of the largest group of comparable runs.

    Comparable runs have the same dataset, settings, weight shapes and number of epochs, and have finished. Raises SettingsError
    saying what is missing if no group has two backends at one seed and two seeds of one backend.
    """
    groups: dict[str, list[RunFacts]] = {}
    for run_facts in facts:
        if run_facts.status == "finished" and run_facts.run.settings.get("seed") is not None:
            groups.setdefault(_group_key(run_facts), []).append(run_facts)
    for runs in sorted(groups.values(), key=len, reverse=True):
        group_agreement = _agreement(runs)
        if group_agreement is not None:
            return group_agreement
    raise SettingsError(f"backends cannot be judged by seeds: {_lacking(groups.values())}{_differing(facts)}")


def _group_key(facts: RunFacts) -> str:
    """Return a text that is equal for runs that differ only in backend and seed."""
    settings = {key: value for key, value in {**DEFAULTS, **facts.run.settings}.items() if key not in FREE}
    return json.dumps([facts.content, facts.epoch, facts.shapes, settings], sort_keys=True)


def _agreement(runs: Sequence[RunFacts]) -> Agreement | None:
    """Return the comparison of comparable runs; None if they lack two backends at one seed or two seeds of one backend."""
    table: dict[tuple[str, int], RunFacts] = {}
    for each in runs:  # a training that occurs twice counts once
        table.setdefault((each.run.backend, each.run.settings["seed"]), each)
    by_seed: dict[int, list[RunFacts]] = {}
    by_backend: dict[str, list[RunFacts]] = {}
    for (backend, seed), each in table.items():
        by_seed.setdefault(seed, []).append(each)
        by_backend.setdefault(backend, []).append(each)
    shared = {seed: some for seed, some in by_seed.items() if len(some) > 1}
    judge = max(by_backend.values(), key=len)
    if not shared or len(judge) < 2:
        return None
    compared = list(table.values())
    curves = {id(each): {row["epoch"]: row for row in each.run.history} for each in compared}
    measures, missing = [], []
    for metric in (METRICS[key] for key in MEASURED):
        if metric.key == LOSS and len({each.loss_unit for each in compared}) > 1:
            continue
        if any(_is_unmeasured(facts, metric) for facts in compared):
            continue
        absent = [each for each in compared if each.final[metric.key] is None]
        if absent and len(absent) < len(compared):
            missing += [f"{each.label}: no {metric.key}, required to compare backends" for each in absent]
        if not absent:
            points = list(_points(metric.key, curves, shared, judge))
            last = next(point for point in reversed(points) if point.epoch == compared[0].epoch)
            measures.append(Measure(metric, last, max(points, key=lambda point: point.relative)))
    if not measures and not missing:
        return None
    return Agreement(tuple(compared), tuple(judge), tuple(sorted(shared)), tuple(measures), tuple(missing))


def _is_unmeasured(facts: RunFacts, metric: Metric) -> bool:
    """Return whether the last validation did not compute the metric: class indices, or a run older than the metric."""
    row = next((row for row in facts.run.history if row["epoch"] == facts.epoch), None)
    return row is not None and row[LOSS] is not None and row[metric.key] is None


def _points(
    key: str, curves: Mapping[int, Mapping[float, Any]], shared: Mapping[int, list[RunFacts]], judge: Sequence[RunFacts]
) -> Iterator[Point]:
    """Yield a point for each epoch after which all runs have a value."""
    for epoch in next(iter(curves.values())):
        values = {run: number(rows.get(epoch, {}).get(key)) for run, rows in curves.items()}
        known = {run: value for run, value in values.items() if value is not None}
        if len(known) < len(values):
            continue
        gaps = []
        for seed, some in shared.items():
            low, *_, high = sorted(some, key=lambda each: known[id(each)])
            gaps.append((known[id(high)] - known[id(low)], seed, (low, high)))
        gap, seed, between = max(gaps, key=lambda each: each[0])
        seeds = [known[id(each)] for each in judge]
        size = fmean(map(abs, known.values()))
        relative = gap / size if size else 0.0
        yield Point(epoch, gap, seed, between, relative, max(seeds) - min(seeds), stdev(seeds))


def _lacking(groups: Iterable[Sequence[RunFacts]]) -> str:
    """Return which runs are missing for a comparison."""
    trained = [{(each.run.backend, each.run.settings["seed"]) for each in runs} for runs in groups]
    several = [pairs for pairs in trained if len({backend for backend, _ in pairs}) > 1]
    if not several:
        return "no two backends were trained to the end over the same data, with the same settings and network"
    if all(len({seed for _, seed in pairs}) == len(pairs) for pairs in several):
        return "no two backends were trained with the same seed"
    if all(len({backend for backend, _ in pairs}) == len(pairs) for pairs in several):
        return (
            "no backend was trained with several seeds; train one of them with others as well, and name these runs too"
        )
    return "no run has been validated"


def _differing(facts: Sequence[RunFacts]) -> str:
    """Return the settings in which the runs differ, in parentheses; empty if there are none."""
    values = [
        {
            **DEFAULTS,
            **each.run.settings,
            "dataset": each.content,
            "weights' shapes": each.shapes,
            "epochs trained": each.epoch,
            "status": each.status,
        }
        for each in facts
    ]
    keys = sorted({key for each in values for key in each} - FREE)
    differing = [key for key in keys if len({json.dumps(each.get(key), sort_keys=True) for each in values}) > 1]
    return f" (these runs differ in {', '.join(differing)})" if differing else ""


def _title(runs: Sequence[RunFacts]) -> str:
    """Return the display names of the backends as a list in words."""
    return listed(list(dict.fromkeys(each.title for each in runs)))


def _inside(metric: Metric) -> str:
    """Return a metric's title as written within a sentence."""
    return metric.title if metric.title[1:2].isupper() or len(metric.title) < 4 else metric.title.lower()


def _plain(point: Point) -> dict[str, Any]:
    return {
        "epoch": point.epoch,
        "gap": point.gap,
        "relative": point.relative,
        "seed": point.seed,
        "between": [each.label for each in point.between],
        "spread": point.spread,
        "deviation": point.deviation,
        "ratio": point.ratio,
    }
