"""A measured figure, and how it is printed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pairing import Times, medians


@dataclass(frozen=True)
class Figure:
    """``value`` in ``unit``, what it should be at least (``better`` higher) or at most (lower), and what it comes from.

    ``spread``: the quartiles of the same figure computed round by round. ``medians`` are raw, in the unit that their names say.
    """

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    target: float | None = None
    spread: tuple[float, float] | None = None
    medians: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether it is as it should be; None where nothing is asked."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target

    def __str__(self) -> str:
        """A row of a markdown table; see HEADER."""
        sign = "≥" if self.better == "higher" else "≤"
        target = "" if self.target is None else f"{sign} {self.target:g} {'met' if self.met else '**missed**'}"
        spread = f"{self.spread[0]:.3g} to {self.spread[1]:.3g}" if self.spread else ""
        raw = ", ".join(f"{name} {value:.4g}" for name, value in self.medians.items())
        return f"| {self.name} | {self.value:.3g}{self.unit} | {target} | {spread} | {raw} |"


HEADER = "| figure | value | target | quartiles | medians |\n|---|---|---|---|---|"


def ratio(
    name: str, times: Times, over: str, under: str, better: Literal["higher", "lower"], target: float | None = None
) -> Figure:
    """The median over the rounds of ``over / under``, which took turns: what slows the machine slows both. Medians in ms."""
    middle = medians({key: times[key] for key in (over, under)})
    rounds = [one / other for one, other in zip(times[over], times[under], strict=True)]
    return Figure(name, statistics.median(rounds), "x", better, target, quartiles(rounds), in_ms(middle))


def quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def in_ms(seconds: Mapping[str, float]) -> dict[str, float]:
    return {f"{name} ms": 1e3 * value for name, value in seconds.items()}
