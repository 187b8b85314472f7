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

from multiseg.dataset.foreground import DARK, Foreground
from multiseg.errors import SettingsError
from multiseg.network import CLASSES, LabelKind
from multiseg.pages.numbers import duration, percent, significant
from multiseg.settings.confusion import TOP, Confusion, mean

LOSS, TRAINING_LOSS = "val_loss", "train_loss"
DEFAULT = "l1"  # selects the best validation of a job that states no metric


class ImageSums:
    """Sums over batches of outputs (N, C, H, W float) and labels of the same shape.

    ``foreground`` states which elements are foreground: those below a threshold, by default 128 (DIGITS' triangles are black on
    white), or another rule.
    """

    def __init__(self, foreground: Foreground | float = DARK) -> None:
        self.foreground = Foreground.of(foreground)
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
        predicted, true = self.foreground.in_outputs(outputs), self.foreground.in_labels(labels)
        self.correct += int((predicted == true).sum())
        self.predicted += int(predicted.sum())
        self.true += int(true.sum())
        self.both += int((predicted & true).sum())

    def mean_difference(self, total: float) -> float | None:
        """Return a sum over differences divided by the number of elements; None for logits, whose scale is not the labels'."""
        return total / max(self.elements, 1) if self.foreground.output_threshold is None else None

    def scores(self) -> dict[str, float | None]:
        """Return the metrics of images by key, None where they are not defined."""
        return {metric.key: metric.measure(self) for metric in SCORES if metric.measure}


def _pixel_accuracy(sums: ImageSums) -> float | None:
    return sums.correct / max(sums.elements, 1) if sums.foreground.known else None


def _iou(sums: ImageSums) -> float | None:
    union = sums.predicted + sums.true - sums.both
    return (sums.both / union if union else 1.0) if sums.foreground.known else None


def _dice(sums: ImageSums) -> float | None:
    both = sums.predicted + sums.true
    return (2 * sums.both / both if both else 1.0) if sums.foreground.known else None


@dataclass(frozen=True)
class Metric:
    """One figure of a run.

    - ``better``: None if runs cannot be ranked by it.
    - ``write``: formats a value; ``hint``: one line of explanation, in which ``{foreground}`` is the run's rule of foreground.
    - ``measure``: computes it from the sums over outputs and labels that are images; ``of_pixels``: from the confusion matrix of
      class indices of pixels; ``of_images``: from that of one class index for each image. None where it is not defined.
    - ``rank``: its place among the columns of a comparison, and among the metrics that decide which run did best; or None.
    - ``curve``: how it is drawn over the epochs: a ``score`` from 0 to 1, a ``number`` on a logarithmic scale, or None.
    - ``in_progress``: whether it is shown while a network is trained; ``has_bar``: whether its column has bars.
    """

    key: str
    title: str
    better: Literal["higher", "lower"] | None
    write: Callable[[float], str]
    hint: str
    measure: Callable[[ImageSums], float | None] | None = None
    of_pixels: Callable[[Confusion], float | None] | None = None
    of_images: Callable[[Confusion], float | None] | None = None
    rank: int | None = None
    curve: Literal["score", "number"] | None = None
    in_progress: bool = False
    has_bar: bool = False

    @property
    def is_measured(self) -> bool:
        """Whether it is computed from outputs and labels of some kind."""
        return any((self.measure, self.of_pixels, self.of_images))

    def text(self, value: float | None) -> str:
        """Return a value as text, a dash for None."""
        return "–" if value is None else self.write(value)

    def best(self, values: Iterable[float]) -> float:
        """Return the best of the values, the lowest if neither direction is better."""
        return max(values) if self.better == "higher" else min(values)

    def explained(self, foreground: str) -> str:
        """Return the hint for a rule of the foreground in words."""
        return self.hint.format(foreground=foreground)


# columns of a history: its last row and its best row give a run's values
SCORES = (
    Metric(TRAINING_LOSS, "Training loss", None, significant, "the run's own loss, in its own unit", in_progress=True),
    Metric(LOSS, "Validation loss", None, significant, "the run's own loss, in its own unit", rank=10, in_progress=True),
    Metric(
        "l1", "L1", "lower", lambda v: f"{v:.2f}", "mean absolute difference per pixel, of 0 to 255",
        lambda sums: sums.mean_difference(sums.absolute), rank=4, curve="number", in_progress=True,
    ),
    Metric(
        "l2", "L2", "lower", significant, "mean squared difference per pixel",
        lambda sums: sums.mean_difference(sums.squared),
    ),
    Metric(
        "pixel_accuracy", "Pixel accuracy", "higher", percent,
        "fraction of the pixels of the right class, or (images) on the target's side of the foreground's threshold",
        _pixel_accuracy, lambda counts: counts.accuracy, rank=6, curve="score",
    ),
    Metric(
        "iou", "IoU", "higher", lambda v: f"{v:.3f}",
        "intersection over union of the pixels {foreground}, over all images together; 1 if there are none",
        _iou, rank=1, curve="score", in_progress=True,
    ),
    Metric(
        "dice", "Dice", "higher", lambda v: f"{v:.3f}",
        "2 |A and B| / (|A| + |B|) of the pixels {foreground}, 1 if there are none, or (class indices) the mean over the "
        "classes; over all images together",
        _dice,
        lambda counts: mean(counts.class_dice), rank=8, curve="score",
    ),
    Metric(
        "accuracy", "Accuracy", "higher", percent, "fraction of the images whose class has the highest score",
        of_images=lambda counts: counts.accuracy, rank=3, curve="score", in_progress=True,
    ),
    Metric(
        "top5_accuracy", "Top-5 accuracy", "higher", percent,
        f"fraction of the images whose class is among the {TOP} highest scores; for more than {TOP} classes",
        of_images=lambda counts: counts.top, rank=5, curve="score",
    ),
    Metric(
        "miou", "Mean IoU", "higher", lambda v: f"{v:.3f}",
        "intersection over union of each class over all images together, mean over the classes that occur",
        of_pixels=lambda counts: mean(counts.class_iou), rank=2, curve="score", in_progress=True,
    ),
    Metric(
        "mean_accuracy", "Mean accuracy", "higher", percent, "fraction correct of each class, mean over the classes that occur",
        of_pixels=lambda counts: mean(counts.class_accuracy), of_images=lambda counts: mean(counts.class_accuracy),
        rank=7, curve="score",
    ),
    Metric(
        "fwiou", "Frequency-weighted IoU", "higher", lambda v: f"{v:.3f}",
        "intersection over union of each class, weighted by its fraction of the pixels",
        of_pixels=lambda counts: counts.frequency_weighted_iou, rank=9,
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

MEASURES = tuple(metric.key for metric in SCORES if metric.is_measured)  # of outputs and labels
DIFFERENCES = ("l1", "l2")  # which logits do not have
SELECTING = (LOSS, *MEASURES)  # by which a validation may be the best one
IN_PROGRESS = tuple(metric for metric in SCORES if metric.in_progress)
COLUMNS = tuple(
    sorted((metric for metric in METRICS.values() if metric.rank is not None), key=lambda metric: metric.rank or 0)
)
"""The metrics that can be columns of a comparison, in their order; see :func:`columns`."""


def columns(runs: Iterable[Mapping[str, float | None]]) -> tuple[Metric, ...]:
    """Return the columns of a comparison of runs with these values by key, without the metrics of other kinds of labels.

    Without any measured metric, the columns are those of images.
    """
    known = {key for values in runs for key, value in values.items() if value is not None}
    measured = [metric for metric in SCORES if metric.is_measured and metric.key in known]
    images = not measured or any(metric.measure and not metric.of_pixels for metric in measured)
    return tuple(m for m in COLUMNS if not m.is_measured or m.key in known or (images and m.measure))


def scores_of(sums: ImageSums | Confusion | None, one_label: bool = False) -> dict[str, float | None]:
    """Return every measured metric by key, None where it is not defined: without labels (None), or for another kind of them.

    ``one_label`` states that a confusion matrix counts one class index for each image.
    """
    scores: dict[str, float | None] = dict.fromkeys(MEASURES)
    for metric in SCORES:
        if isinstance(sums, ImageSums) and metric.measure:
            scores[metric.key] = metric.measure(sums)
        of_classes = metric.of_images if one_label else metric.of_pixels
        if isinstance(sums, Confusion) and of_classes:
            scores[metric.key] = of_classes(sums)
    return scores


def defined_for(labels: LabelKind, one_label: bool, logits: bool) -> tuple[str, ...]:
    """Return the keys of the metrics that may select a validation, for a network that reads its labels as this kind.

    ``one_label`` is as in :func:`scores_of`; ``logits`` states that outputs are not on the scale of labels that are images.
    """
    if labels == CLASSES:
        keys = [metric.key for metric in SCORES if (metric.of_images if one_label else metric.of_pixels)]
    else:
        keys = [metric.key for metric in SCORES if metric.measure and not (logits and metric.key in DIFFERENCES)]
    return (LOSS, *keys)


def metric_named(key: str) -> Metric:
    """Return the metric with this key. Raises SettingsError listing the known ones if there is none."""
    if key not in METRICS:
        raise SettingsError(f"no metric is called {key!r}; there are {', '.join(METRICS)}")
    return METRICS[key]


def selecting(metric: str, rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the metric by which the rows of a history are compared: ``metric``, or the validation loss if it is not defined.

    Class indices have no metrics of images, images none of class indices, and logits no differences; all have a validation loss.
    The last validation decides, because a resumed run of an older version may have differences of logits in its first rows.
    """
    rows = list(rows)
    validated = [row for row in rows if row.get(LOSS) is not None]
    return metric if any(row.get(metric) is not None for row in validated[-1:] or rows) else LOSS


def cost(metric: str, row: Mapping[str, Any]) -> float | None:
    """Return a row's value as a number that is lower for a better row; None if it has none or it is not finite."""
    value = row.get(metric)
    if value is None or not math.isfinite(value):
        return None
    return -float(value) if METRICS[metric].better == "higher" else float(value)
