"""The figures runs are compared by: what each is called, which way is better, how it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from multiseg.errors import SettingsError
from multiseg.pages.numbers import duration, percent, significant


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
    Metric("pixel_accuracy", "Pixel accuracy", "higher", percent, "part of the pixels on the target's side of 128"),
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
