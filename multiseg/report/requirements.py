"""Requirements on runs: ``iou>=0.85`` for each run, ``iou=0.02`` for the largest difference between runs."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from multiseg.errors import SettingsError
from multiseg.pages.numbers import number
from multiseg.report.facts import RunFacts
from multiseg.settings.metrics import Metric, metric_named

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Requirement:
    """A metric, a comparison operator and the limit."""

    metric: Metric
    comparison: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Parse ``metric>=value`` (or ``<=``, ``>``, ``<``). Raises SettingsError for any other text."""
        match = re.fullmatch(r"\s*(\w+)\s*(>=|<=|>|<)\s*(\S+)\s*", text)
        if match is None:
            raise SettingsError(f"requirement {text!r} is not of the form metric>=value (or <=, >, <), as in iou>=0.85")
        key, comparison, limit = match.groups()
        return cls(metric_named(key), comparison, _limit(limit, text))

    def failures(self, facts: Iterable[RunFacts]) -> list[str]:
        holds = _COMPARISONS[self.comparison]
        required = f"{self.metric.key} {self.comparison} {self.limit:g}"
        values = [(each.label, each.final[self.metric.key]) for each in facts]
        return [
            f"{label}: {_written(self.metric, value)}, required {required}"
            for label, value in values
            if value is None or not holds(value, self.limit)
        ]


def gap_failures(metric: Metric, limit: float, facts: Iterable[RunFacts]) -> list[str]:
    """Return one line if the metric differs by more than ``limit`` between runs, and one for each run without a value."""
    values = [(each.final[metric.key], each.label) for each in facts]
    known = sorted((value, label) for value, label in values if value is not None)
    missing = [f"{label}: {_written(metric, None)}, required for the gap" for value, label in values if value is None]
    # tolerance for rounding: 0.86 - 0.84 is slightly more than 0.02 in binary
    if not known or known[-1][0] - known[0][0] <= limit * (1 + 1e-9):
        return missing
    (low, low_label), (high, high_label) = known[0], known[-1]
    return [
        *missing,
        f"{metric.key} differs by {high - low:.4g} between {low_label} ({low:.6g}) and {high_label} ({high:.6g}), "
        f"at most {limit:g} allowed",
    ]


def check(facts: Iterable[RunFacts], require: Iterable[str], max_gap: Mapping[str, float]) -> list[str]:
    """Return one line for each requirement that is not met; an empty list if all are met."""
    facts = list(facts)
    requirements = [Requirement.parse(text) for text in require]
    gaps = [(metric_named(key), _limit(limit, f"{key}={limit}")) for key, limit in max_gap.items()]
    failures = [line for requirement in requirements for line in requirement.failures(facts)]
    return failures + [line for metric, limit in gaps for line in gap_failures(metric, limit, facts)]


def regressions(
    facts: Iterable[RunFacts], baseline: Iterable[RunFacts], max_regression: Mapping[str, float]
) -> list[str]:
    """Return one line for each run that is worse than its baseline by more than ``max_regression``, by metric.

    The baseline of a run is the mean of the runs of the same backend and network file. A run without one, or without a value, is
    a failure too. Raises SettingsError for an unknown metric, and for one of which neither direction is better.
    """
    limits = [(metric_named(key), _limit(limit, f"{key}={limit}")) for key, limit in max_regression.items()]
    for metric, _ in limits:
        if metric.better is None and not metric.key.endswith("loss"):
            raise SettingsError(f"max_regression: {metric.key} is neither better when higher nor when lower")
    earlier = list(baseline)
    failures = []
    for each in facts:
        same = [one for one in earlier if _identity(one) == _identity(each)]
        if not same:
            backend, model = _identity(each)
            failures.append(f"{each.label}: no baseline run has the backend {backend} and the network {model}")
            continue
        for metric, limit in limits:
            values = [value for one in same if (value := one.final[metric.key]) is not None]
            now = each.final[metric.key]
            if now is None or not values:
                failures.append(f"{each.label}: {_written(metric, now)}, required for the comparison with the baseline")
                continue
            before = sum(values) / len(values)
            worse = before - now if metric.better == "higher" else now - before
            if worse > limit * (1 + 1e-9):
                failures.append(
                    f"{each.label}: {metric.key} is {now:.6g}, worse than the baseline's {before:.6g} by {worse:.4g}, "
                    f"at most {limit:g} allowed"
                )
    return failures


def _identity(facts: RunFacts) -> tuple[str, str]:
    return facts.run.backend, str(facts.run.settings["model"])


def _limit(value: str | float, text: str) -> float:
    try:
        limit = number(float(value))
    except ValueError:
        limit = None
    if limit is None:
        raise SettingsError(f"{text!r}: {value!r} is not a number")
    return limit


def _written(metric: Metric, value: float | None) -> str:
    return f"no {metric.key}" if value is None else f"{metric.key} {value:.6g}"
