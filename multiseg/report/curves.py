"""The data of the charts over epochs, as charts.js draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from multiseg.settings.metrics import LOSS, SCORES, TRAINING_LOSS

T = TypeVar("T")
LEARNING_RATE = "learning_rate"
MOST_NUMBERS = 400_000  # of all curves of a page, which then take at most about 3.5 MB
COLUMNS = 8  # of numbers for each row of a run without classes
COLOURS = 8  # in page.css; further runs repeat them with dashed lines

_DRAWN = [metric for metric in sorted(SCORES, key=lambda metric: metric.rank or 0) if metric.curve]
_KEYS = [*(metric.key for metric in _DRAWN), LEARNING_RATE, TRAINING_LOSS, LOSS]


def steps_of(rows: Sequence[int], classes: int = 0) -> list[int]:
    """Return for each run, with that many rows, the n for which every n-th row is drawn, which bounds the size of the page.

    They are powers of two, which change seldom while runs train. ``classes`` is the number of classes whose IoU is drawn as well.
    """
    most = max(20, MOST_NUMBERS // ((COLUMNS + classes) * max(1, len(rows))))
    return [1 << max(0, math.ceil(math.log2(count / most))) if count else 1 for count in rows]


def kept(rows: Sequence[T], step: int) -> list[T]:
    """Return every ``step``-th of the rows, and the last."""
    return [*rows[:-1:step], *rows[-1:]]


def run_curves(
    number: int, label: str, loss: str, history: Sequence[Mapping[str, Any]], step: int = 1
) -> dict[str, Any]:
    """Return the curves of a run, the ``number``-th of the page: columns of numbers, rounded to six digits.

    They have every ``step``-th row. Columns without any value are left out.
    """
    spent, so_far = [], 0.0
    for row in history:
        so_far += row["seconds"] or 0.0
        spent.append(_short(so_far))
    rows = kept(history, step)
    values = {key: [_short(row.get(key)) for row in rows] for key in _KEYS}
    return {
        "label": label,
        "loss": loss,
        "colour": number % COLOURS,
        "dashed": number >= COLOURS,
        "epoch": [row["epoch"] for row in rows],
        "seconds": kept(spent, step),
        "values": {key: column for key, column in values.items() if any(value is not None for value in column)},
    }


def drawn_charts(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the charts for which any of the curves has a value."""
    charts: list[dict[str, Any]] = [
        {
            "key": metric.key,
            "title": f"{metric.title}, validation",
            "kind": metric.curve,
            "log": metric.curve == "number",
        }
        for metric in _DRAWN
    ]
    charts.append({"key": LEARNING_RATE, "title": "Learning rate", "kind": "number", "log": True})
    return [chart for chart in charts if any(chart["key"] in run["values"] for run in runs)]


def _short(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
