"""The figures runs are compared by: what each is called, which way is better, how it is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from multiseg.errors import SettingsError


def number(value: object) -> float | None:
    """The value as a float, or None where there is none or it is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def significant(value: float, digits: int = 4) -> str:
    """The value with so many significant digits, without an exponent where it stays readable."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        decimals = 0 if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:.{min(decimals, 6)}f}"
    return f"{value:.{digits - 1}g}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 8.7 s, 2 min 05 s, 1 h 12 min."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


@dataclass(frozen=True)
class Metric:
    """One figure of a run."""

    key: str
    title: str
    better: Literal["higher", "lower"] | None
    """None where runs cannot be ranked by it."""
    write: Callable[[float], str]
    hint: str

    def text(self, value: float | None) -> str:
        return "–" if value is None else self.write(value)

    def best(self, values: list[float]) -> float:
        """The best of the values, the lower one where neither way is better."""
        return max(values) if self.better == "higher" else min(values)


# read off the rows of a run's history: each has a last and a best value
SCORES = (
    Metric("iou", "IoU", "higher", lambda v: f"{v:.3f}", "intersection over union of the parts below 128"),
    Metric("l1", "L1", "lower", lambda v: f"{v:.2f}", "mean absolute difference per pixel, of 0 to 255"),
    Metric("l2", "L2", "lower", significant, "mean squared difference per pixel"),
    Metric("pixel_accuracy", "Pixel accuracy", "higher", _percent, "part of the pixels on the target's side of 128"),
    Metric("val_loss", "Validation loss", None, significant, "the run's own loss, in its own unit"),
    Metric("train_loss", "Training loss", None, significant, "the run's own loss, in its own unit"),
)
# one value for the run
COSTS = (
    Metric("train_seconds", "Training time", "lower", duration, "all epochs together"),
    Metric("seconds", "Time per epoch", "lower", duration, "median over the epochs, without validation"),
    Metric("images_per_second", "Images/s", "higher", lambda v: f"{v:,.0f}", "median over the epochs"),
    Metric("peak_memory_mb", "Peak memory", "lower", lambda v: f"{v:,.0f} MB", "of the backend's process"),
    Metric("parameters", "Parameters", None, lambda v: f"{v:,.0f}", "numbers the network learns"),
)
METRICS = {metric.key: metric for metric in SCORES + COSTS}


def metric_named(key: str) -> Metric:
    """The metric of this name. SettingsError lists the known ones where there is none."""
    if key not in METRICS:
        raise SettingsError(f"no metric is called {key!r}; there are {', '.join(METRICS)}")
    return METRICS[key]
