"""The data of the charts over epochs, as charts.js draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from multiseg.settings.metrics import LOSS, SCORES, TRAINING_LOSS

LEARNING_RATE = "learning_rate"
COLOURS = 8  # in page.css; further runs repeat them with dashed lines

_DRAWN = [metric for metric in sorted(SCORES, key=lambda metric: metric.rank or 0) if metric.curve]
_KEYS = [*(metric.key for metric in _DRAWN), LEARNING_RATE, TRAINING_LOSS, LOSS]


def run_curves(number: int, label: str, loss: str, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the curves of a run, the ``number``-th of the page: columns of numbers, rounded to six digits."""
    spent, so_far = [], 0.0
    for row in history:
        so_far += row["seconds"] or 0.0
        spent.append(_short(so_far))
    return {
        "label": label,
        "loss": loss,
        "colour": number % COLOURS,
        "dashed": number >= COLOURS,
        "epoch": [row["epoch"] for row in history],
        "seconds": spent,
        "values": {key: [_short(row.get(key)) for row in history] for key in _KEYS},
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
    return [
        chart for chart in charts if any(value is not None for run in runs for value in run["values"][chart["key"]])
    ]


def _short(value: float | None) -> float | None:
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
