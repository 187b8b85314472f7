"""Class weights of a job: numbers, or computed from the labels of the training split. docs/losses.md has the formulas."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.dataset import Dataset
from multiseg.errors import SettingsError, setting
from multiseg.network import CLASSES, IMAGES
from multiseg.schema import is_number
from multiseg.settings.binary import label_bounds
from multiseg.settings.losses import BINARY, LABEL_MAX, LOSSES

BALANCED, MEDIAN_FREQUENCY = "balanced", "median_frequency"
COMPUTED = (BALANCED, MEDIAN_FREQUENCY)
Array = npt.NDArray[Any]


def weight_problems(weights: Any, loss: str | None) -> list[str]:
    """Return what is wrong with a job's ``class_weights`` and its ``loss`` (None: the network file's own), in words."""
    if weights is None:
        return []
    if isinstance(weights, str):
        if weights not in COMPUTED:
            return [f"{setting('class_weights', weights)}: choose {' or '.join(COMPUTED)}, or a number for each class"]
    elif not isinstance(weights, (list, tuple)) or not all(is_number(value) and value >= 0 for value in weights):
        return [f"{setting('class_weights', weights)}: must be numbers from 0, one for each class"]
    elif not any(weights):
        return [f"{setting('class_weights', list(weights))}: one of them must be above 0"]
    if loss is None or not LOSSES[loss].weighted:
        named = f"the loss {loss!r} has none" if loss else "the network file's own loss keeps its own weights"
        usable = [name for name, row in LOSSES.items() if row.weighted]
        return [f"{setting('class_weights', weights)}: {named}; choose {setting('loss')} {' or '.join(usable)}"]
    return []


def dataset_problems(dataset: Dataset, loss: str, weights: Any, losses: Collection[str]) -> list[str]:
    """Return why a dataset has not the labels that a named loss, or class weights, require; ``losses`` are the backend's."""
    kind = dataset.labels.kind
    if kind not in LOSSES[loss].accepts:
        others = [name for name in losses if name in LOSSES and kind in LOSSES[name].accepts]
        return [
            f"{setting('loss', loss)}: takes class indices, and the labels of {dataset.path} are images; create the dataset with "
            f"{setting('labels', CLASSES)}, or choose one of {', '.join(others)}"
        ]
    count = class_count(dataset)
    if loss == BINARY and kind == CLASSES and count is not None and count > 2:
        return [f"{setting('loss', loss)}: is for two classes, and {dataset.path} has {count}; choose cross_entropy"]
    if isinstance(weights, (list, tuple)) and dataset.labels.names and count != len(weights):
        return [
            f"{setting('class_weights', list(weights))}: are {len(weights)} numbers, and {dataset.path} has {count} classes; "
            "specify one for each"
        ]
    return []


def class_count(dataset: Dataset) -> int | None:
    """Return the number of classes of a dataset: that of their names, else of the labels that dataset.json counts; else None."""
    if dataset.labels.names:
        return len(dataset.labels.names)
    counts = [dataset.label_counts(split) or {} for split in ("train", "val")]
    values = [value for of_split in counts for value in of_split if value != dataset.labels.ignore]
    return max(values) + 1 if values else None


def label_max(dataset: Dataset, ignored: Collection[int] = ()) -> float:
    """Return the label of probability 1: 1 for two classes and for masks whose labels that count are 0 and 1, else 255."""
    if dataset.labels.kind != IMAGES:
        return 1.0
    bounds = label_bounds(dataset, ignored)
    return 1.0 if bounds is not None and bounds[1] <= 1 else 255.0


def with_label_max(
    loss: str | None, options: Mapping[str, float], dataset: Dataset | None, ignored: Collection[int]
) -> dict[str, float]:
    """Return the options of a loss, with the label of probability 1 of the dataset if the loss needs it and they lack it."""
    if loss != BINARY or dataset is None or LABEL_MAX in options:
        return dict(options)
    return {**options, LABEL_MAX: label_max(dataset, ignored)}


def computed(requested: Any, dataset: Dataset | None, ignored: Collection[int]) -> tuple[float, ...]:
    """Return the class weights of a job: () for None, numbers as they are, or those of the training labels of ``dataset``.

    Raises SettingsError if no training label counts.
    """
    if requested is None or (isinstance(requested, str) and dataset is None):
        return ()
    if not isinstance(requested, str):
        return tuple(float(value) for value in requested)
    assert dataset is not None
    classes = class_count(dataset)
    stored = dataset.label_counts("train") if requested == BALANCED else None
    counts = _counts(dataset, ignored, classes) if stored is None else _as_row(stored, ignored, classes)
    if not counts.any():
        raise SettingsError(
            f"{setting('class_weights', requested)}: {dataset.path} has no training label that counts; check the dataset with "
            "multiseg check-dataset"
        )
    return tuple((balanced if requested == BALANCED else median_frequency)(counts).tolist())


def balanced(counts: Array) -> Array:
    """Return total / (classes x count) of the labels of all images, ``counts`` (images, classes); 1 for a class without labels.

    ``classes`` counts those that have labels.
    """
    of_class = counts.sum(0).astype(np.float64)
    present = of_class > 0
    return np.where(present, of_class.sum() / (present.sum() * np.maximum(of_class, 1)), 1.0)


def median_frequency(counts: Array) -> Array:
    """Return median(frequency) / frequency of each class, ``counts`` (images, classes); 1 for a class without labels.

    The frequency of a class is its share of the labels of the images in which it occurs; the median is that of the classes that
    have labels. Source: Eigen and Fergus 2015, https://arxiv.org/abs/1411.4734, section 6.3.2.
    """
    of_class = counts.sum(0).astype(np.float64)
    present = of_class > 0
    where = ((counts > 0) * counts.sum(1, keepdims=True)).sum(0)  # labels of the images in which the class occurs
    frequency = of_class / np.maximum(where, 1)
    return np.where(present, np.median(frequency[present]) / np.where(present, frequency, 1.0), 1.0)


def _as_row(stored: Mapping[int, int], ignored: Collection[int], classes: int | None) -> Array:
    """Return the counts of dataset.json over all images, (1, classes), without the ignored labels."""
    row = np.zeros((1, classes or max(stored, default=-1) + 1), np.int64)
    for value, count in stored.items():
        if value not in ignored and value < row.shape[1]:
            row[0, value] = count
    return row


def _counts(dataset: Dataset, ignored: Collection[int], classes: int | None) -> Array:
    """Return how often each class occurs in each training label, (images, classes), without the ignored labels."""
    rows: list[Array] = []
    for index in range(len(dataset.train)):
        label = dataset.train.label(index)
        if label is not None:
            values = label[~np.isin(label, list(ignored))]
            rows.append(np.bincount(np.asarray(values, np.int64).ravel(), minlength=classes or 0)[:classes])
    width = max((len(row) for row in rows), default=0)
    counts = np.zeros((len(rows), width), np.int64)
    for row, values in zip(counts, rows, strict=True):
        row[: len(values)] = values
    return counts
