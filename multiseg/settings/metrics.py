"""Metrics: one row for each figure that a run is measured, selected or compared by.

Everything that lists metrics is derived from this table: the columns of history.csv, the choices of ``metric``, the progress bar,
TensorBoard's tags, the results of test-db, and the tables, curves and requirements of a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from multiseg.errors import SettingsError
from multiseg.pages.numbers import duration, percent, significant

THRESHOLD = 128  # half of the 0..255 range: pixels below it are foreground, black on white as in the tutorial

LOSS, TRAINING_LOSS = "val_loss", "train_loss"


class ImageSums:
    """Sums over batches of outputs (N, C, H, W float) and labels of the same shape, images of 0..255.

    An element below ``threshold`` is foreground (DIGITS' triangles are black on white).
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self.elements = self.correct = 0
        self.predicted = self.true = self.both = 0  # foreground elements: of the outputs, of the labels, of both
        self.absolute = self.squared = 0.0

    def add(self, outputs: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        """Add one batch. Raises ValueError for arrays of different shapes, which must not be broadcast."""
        if outputs.shape != labels.shape:
            raise ValueError(f"outputs are {outputs.shape}, labels are {labels.shape}")
        difference = outputs.astype(np.float64) - labels
        self.elements += difference.size
        self.absolute += float(np.abs(difference).sum())
        self.squared += float(np.square(difference).sum())
        predicted, true = outputs < self.threshold, labels < self.threshold
        self.correct += int((predicted == true).sum())
        self.predicted += int(predicted.sum())
        self.true += int(true.sum())
        self.both += int((predicted & true).sum())

    def scores(self) -> dict[str, float]:
        """Return the metrics of images by key."""
        return {metric.key: metric.measure(self) for metric in SCORES if metric.measure}


def _iou(sums: ImageSums) -> float:
    union = sums.predicted + sums.true - sums.both
    return sums.both / union if union else 1.0


@dataclass(frozen=True)
class Metric:
    """One figure of a run.

    - ``better``: None if runs cannot be ranked by it.
    - ``write``: formats a value; ``hint``: one line of explanation, in which ``{threshold}`` is the run's threshold.
    - ``measure``: computes it from the sums over outputs and labels that are images; None for other figures.
    - ``rank``: its place among the columns of a comparison, and among the metrics that decide which run did best; or None.
    - ``curve``: how it is drawn over the epochs: a ``score`` from 0 to 1, a ``number`` on a logarithmic scale, or None.
    - ``in_progress``: whether it is shown while a network is trained; ``has_bar``: whether its column has bars.
    """

    key: str
    title: str
    better: Literal["higher", "lower"] | None
    write: Callable[[float], str]
    hint: str
    measure: Callable[[ImageSums], float] | None = None
    rank: int | None = None
    curve: Literal["score", "number"] | None = None
    in_progress: bool = False
    has_bar: bool = False

    def text(self, value: float | None) -> str:
        """Return a value as text, a dash for None."""
        return "–" if value is None else self.write(value)

    def best(self, values: Iterable[float]) -> float:
        """Return the best of the values, the lowest if neither direction is better."""
        return max(values) if self.better == "higher" else min(values)

    def explained(self, threshold: str) -> str:
        """Return the hint for a threshold."""
        return self.hint.format(threshold=threshold)


# columns of a history: its last row and its best row give a run's values
SCORES = (
    Metric(TRAINING_LOSS, "Training loss", None, significant, "the run's own loss, in its own unit", in_progress=True),
    Metric(LOSS, "Validation loss", None, significant, "the run's own loss, in its own unit", rank=10, in_progress=True),
    Metric(
        "l1", "L1", "lower", lambda v: f"{v:.2f}", "mean absolute difference per pixel, of 0 to 255",
        lambda sums: sums.absolute / max(sums.elements, 1), rank=2, curve="number", in_progress=True,
    ),
    Metric(
        "l2", "L2", "lower", significant, "mean squared difference per pixel",
        lambda sums: sums.squared / max(sums.elements, 1),
    ),
    Metric(
        "pixel_accuracy", "Pixel accuracy", "higher", percent, "fraction of the pixels on the target's side of {threshold}",
        lambda sums: sums.correct / max(sums.elements, 1), rank=3, curve="score",
    ),
    Metric(
        "iou", "IoU", "higher", lambda v: f"{v:.3f}",
        "intersection over union of the pixels below {threshold}, over all images together; 1 if there are none",
        _iou, rank=1, curve="score", in_progress=True,
    ),
    Metric(
        "dice", "Dice", "higher", lambda v: f"{v:.3f}",
        "2 |A and B| / (|A| + |B|) of the pixels below {threshold}, over all images together; 1 if there are none",
        lambda sums: 2 * sums.both / (sums.predicted + sums.true) if sums.predicted + sums.true else 1.0,
        rank=4, curve="score",
    ),
)  # fmt: skip
# one value for a run
COSTS = (
    Metric("train_seconds", "Training time", "lower", duration, "all epochs together", rank=11, has_bar=True),
    Metric(
        "seconds", "Time per epoch", "lower", duration, "median over the epochs, without validation", rank=12, has_bar=True
    ),
    Metric(
        "images_per_second", "Images/s", "higher", lambda v: f"{v:,.0f}", "median over the epochs", rank=13, has_bar=True
    ),
    Metric(
        "peak_memory_mb", "Peak memory", "lower", lambda v: f"{v:,.0f} MB", "of the backend's process", rank=14, has_bar=True
    ),
    Metric("parameters", "Parameters", None, lambda v: f"{v:,.0f}", "numbers the network learns"),
)  # fmt: skip
METRICS = {metric.key: metric for metric in SCORES + COSTS}

MEASURES = tuple(metric.key for metric in SCORES if metric.measure)  # of outputs and labels that are images
SELECTING = (LOSS, *MEASURES)  # by which a validation may be the best one
IN_PROGRESS = tuple(metric for metric in SCORES if metric.in_progress)
COLUMNS = tuple(
    sorted((metric for metric in METRICS.values() if metric.rank is not None), key=lambda metric: metric.rank or 0)
)
"""The metrics that are columns of a comparison, in their order."""


def metric_named(key: str) -> Metric:
    """Return the metric with this key. Raises SettingsError listing the known ones if there is none."""
    if key not in METRICS:
        raise SettingsError(f"no metric is called {key!r}; there are {', '.join(METRICS)}")
    return METRICS[key]


def selecting(metric: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the metric by which the rows of a history are compared: ``metric``, or the validation loss if no row has it.

    Labels that are class indices have a validation loss, but no metrics of images.
    """
    return metric if any(row.get(metric) is not None for row in rows) else LOSS


def cost(metric: str, row: Mapping[str, Any]) -> float | None:
    """Return a row's value as a number that is lower for a better row; None if it has none or it is not finite."""
    value = row.get(metric)
    if value is None or not math.isfinite(value):
        return None
    return -float(value) if METRICS[metric].better == "higher" else float(value)
