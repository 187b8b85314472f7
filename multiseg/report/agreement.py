"""Whether backends differ by less than seeds do: the same training in several backends, beside several seeds of one.

Both are differences between the largest and the smallest value: of backends at one seed, of seeds of one backend.
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
from multiseg.topology.words import listed

MEASURED = SELECTING
# what runs that are to be alike may differ in: the backend, its file of the network, the seed, and what changes no result
FREE = {"backend", "model", "exported", "seed", "device", "threads", "lowering", "snapshot_interval", "keep"}


@dataclass(frozen=True)
class Point:
    """By how much backends and seeds differ in a metric after one epoch."""

    epoch: float
    gap: float
    """The largest difference between backends at one seed."""
    seed: int
    between: tuple[RunFacts, RunFacts]
    """The runs with the smallest and the largest value there."""
    relative: float
    """The gap as a part of the mean size of the values, 0 where they are 0."""
    spread: float
    """The difference between the largest and the smallest value over the seeds."""
    deviation: float
    """Their standard deviation (of a sample: divided by one less than their number)."""

    @property
    def ratio(self) -> float | None:
        """The gap as a multiple of the spread; None where all seeds are equal but not all backends."""
        if self.spread == 0:
            return None if self.gap else 0.0
        return self.gap / self.spread

    def within(self, factor: float) -> bool:
        """Whether the gap is at most that multiple of the spread."""
        return self.gap <= factor * self.spread * (1 + 1e-9)


@dataclass(frozen=True)
class Measure:
    """A metric at the end, and at the epoch where backends differ most for its size."""

    metric: Metric
    last: Point
    widest: Point

    @property
    def points(self) -> tuple[Point, ...]:
        """Both, or the one that is both."""
        return (self.last,) if self.last.epoch == self.widest.epoch else (self.last, self.widest)


@dataclass(frozen=True)
class Agreement:
    """What is known of runs that differ in backend and seed alone. ``judge``: those of one backend whose seeds are compared."""

    runs: tuple[RunFacts, ...]
    judge: tuple[RunFacts, ...]
    shared: tuple[int, ...]
    """The seeds that several backends have."""
    measures: tuple[Measure, ...]
    """Of every metric that all runs have a finite value of at the end."""
    missing: tuple[str, ...]
    """For each run without a finite value of a metric that others have, one line."""

    @property
    def backends(self) -> list[str]:
        return list(dict.fromkeys(each.run.backend for each in self.runs))

    @property
    def seeds(self) -> list[int]:
        """Those of the judging backend."""
        return [each.run.settings["seed"] for each in self.judge]

    @property
    def basis(self) -> str:
        """What is compared with what, in words."""
        return (
            f"Between {_title(self.runs)} at the same seed ({', '.join(map(str, self.shared))}), and between "
            f"{len(self.judge)} seeds of {_title(self.judge)} ({', '.join(map(str, self.seeds))}), with the same settings "
            "otherwise: the largest less the smallest value."
        )

    @property
    def headline(self) -> str:
        """One sentence: whether backends differ by less than seeds do."""
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
        """One line for every metric in which backends differ by more than ``factor`` times what seeds do, at the end or where
        they differ most; and for every value that is missing."""
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
        """Plain values that JSON can hold."""
        return {
            "headline": self.headline,
            "backends": self.backends,
            "runs": [each.label for each in self.runs],
            "seeds_of": self.judge[0].run.backend,
            "seeds": self.seeds,
            "missing": list(self.missing),
            "metrics": {
                measure.metric.key: {"last": _plain(measure.last), "widest": _plain(measure.widest)}
                for measure in self.measures
            },
        }


def times(point: Point) -> str:
    """The gap as a multiple of the spread, in words."""
    return "where seeds do not" if point.ratio is None else f"{significant(point.ratio, 2)} times as much"


def agreement(facts: Sequence[RunFacts]) -> Agreement:
    """What the runs say of backends and seeds, the largest group of them that says something.

    Runs that are to be alike have the same dataset, settings and weights' shapes, are as far, and have finished. Raises
    SettingsError saying what is missing where no group has two backends at one seed, and two seeds of one backend.
    """
    groups: dict[str, list[RunFacts]] = {}
    for each in facts:
        if each.status == "finished" and each.run.settings.get("seed") is not None:
            groups.setdefault(_alike(each), []).append(each)
    for runs in sorted(groups.values(), key=len, reverse=True):
        found = _agreement(runs)
        if found is not None:
            return found
    raise SettingsError(f"backends cannot be judged by seeds: {_lacking(groups.values())}{_differing(facts)}")


def _alike(facts: RunFacts) -> str:
    """The same text for runs that differ in backend and seed alone."""
    settings = {key: value for key, value in facts.run.settings.items() if key not in FREE}
    return json.dumps([facts.content, facts.epoch, facts.shapes, settings], sort_keys=True)


def _agreement(runs: Sequence[RunFacts]) -> Agreement | None:
    """Of runs that are alike; None where they say nothing."""
    table: dict[tuple[str, int], RunFacts] = {}
    for each in runs:  # a training that is there twice counts once
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
    """One for each epoch after which all runs have a value."""
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
    """What would have to be there."""
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
    """What any of the runs differ in, in brackets."""
    values = [
        {
            **each.run.settings,
            "dataset": each.content,
            "weights' shapes": each.shapes,
            "epochs trained": each.epoch,
            "status": each.status,
        }
        for each in facts
    ]
    keys = sorted({key for each in values for key in each} - FREE)
    found = [key for key in keys if len({json.dumps(each.get(key), sort_keys=True) for each in values}) > 1]
    return f" (these runs differ in {', '.join(found)})" if found else ""


def _title(runs: Sequence[RunFacts]) -> str:
    """The backends' names as people write them."""
    return listed(list(dict.fromkeys(each.title for each in runs)))


def _inside(metric: Metric) -> str:
    """A metric's title within a sentence."""
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
