"""Check that the mean loss of every training image counts equally, where the gradients of parts of a batch are averaged.

A mean over the labels that count, or a mean weighted by class, is divided by a number that depends on the labels. The mean of the
parts of a batch is that of the whole batch only if this number is the same for every image.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from multiseg.dataset import Dataset
from multiseg.dataset.augmentation import Augmentation, Augmented
from multiseg.dataset.cropping import Crop, exceeds
from multiseg.dataset.feed import batches
from multiseg.dataset.labels import ignored
from multiseg.errors import SettingsError, setting
from multiseg.layout import Layout
from multiseg.network import CLASSES
from multiseg.settings.loaded import LoadedSettings
from multiseg.training.preparation import crop_of
from multiseg.worker.client import Worker

MOST_VALUES = 32  # label values whose numbers are compared
ROUNDING = 1e-5  # relative; of a count that a framework sums in float32


def check_equal(settings: LoadedSettings, dataset: Dataset, layout: Layout, worker: Worker, ranks: int) -> None:
    """Raise SettingsError if an update averages several parts of a batch and the loss of images is divided by different counts.

    Compares the counts (:meth:`multiseg.network.Network.evaluate`) of the training images that have the fewest and the most
    labels of each value. The labels of integer type are read once. ``ranks`` is the number of processes.
    """
    if settings.accumulate == 1 and ranks == 1:
        return
    crop = crop_of(settings, dataset, layout)
    if crop is not None:
        _check_crops(settings, dataset, layout, worker, ranks, crop)
        return
    network = settings.network
    left_out = ignored(network, dataset.labels)
    indices = _extremes(dataset.train, None if network.get("labels") == CLASSES else left_out, left_out)
    first: tuple[int, list[float]] | None = None
    with batches(dataset.train, 1, np.array(indices, np.int64), layout, prefetch=0) as feed:
        for index, batch in zip(indices, feed, strict=True):
            _, terms = worker.call("evaluate", features=batch.features, labels=batch.labels)
            counts = [float(count) for _, count in terms]
            if first is None:
                first = index, counts
            pairs = zip(first[1], counts, strict=True)
            different = next((pair for pair in pairs if not math.isclose(*pair, rel_tol=ROUNDING)), None)
            if different:
                records = [dataset.train.label_record(first[0]), dataset.train.label_record(index)]
                _refuse(settings, records, different, ranks)


def _check_crops(
    settings: LoadedSettings, dataset: Dataset, layout: Layout, worker: Worker, ranks: int, crop: Crop
) -> None:
    """Raise SettingsError if the count of a crop depends on its labels, of which crops have any numbers.

    Compares the counts of one crop with constant labels, for each value that may occur: those of the dataset and of the filling.
    """
    left_out = ignored(settings.network, dataset.labels)
    compared = None if settings.network.get("labels") == CLASSES else left_out
    values = _occurring(dataset.train, compared)
    fills = dataset.train.shape is None or exceeds(crop.size, dataset.train.shape[1:]) or settings.augmentation.warps
    if crop.label_fill is not None and fills:
        values = [crop.label_fill, *(value for value in values if value != crop.label_fill)]
    features, labels = Augmented(Augmentation(), settings.seed, 0, crop)(
        *dataset.train.pairs([0]), np.zeros(1, np.int64)
    )
    if labels is None or not values:
        return
    if compared is not None:  # of images, all values but those that are ignored count alike
        values.append(next(value for value in range(256) if value not in left_out))
    first: list[float] | None = None
    for value in values:
        constant = layout.labels(np.full(labels.shape, value, np.int32))
        _, terms = worker.call("evaluate", features=layout.features(features), labels=constant)
        counts = [float(count) for _, count in terms]
        first = first or counts
        different = next(
            (pair for pair in zip(first, counts, strict=True) if not math.isclose(*pair, rel_tol=ROUNDING)), None
        )
        if different:
            _refuse(settings, [f"a crop of labels {values[0]}", f"of labels {value}"], different, ranks)


def _extremes(split: Any, values: Collection[int] | None, first: Iterable[int]) -> list[int]:
    """Return the positions of the labels with the fewest and the most elements of each of ``values``, None for all values.

    The values ``first`` come first. Returns no position if labels are not integers.
    """
    if values is not None and not values:
        return []
    numbers: list[dict[int, int]] = []
    for index in range(len(split)):
        label = split.label(index)
        if label is None or label.dtype.kind not in "iu":
            return []
        found, counts = np.unique(label, return_counts=True)
        numbers.append(dict(zip(found.tolist(), counts.tolist(), strict=True)))
    present = sorted(set().union(*numbers), key=lambda value: (value not in first, value))
    result: dict[int, None] = {}
    for value in [value for value in present if values is None or value in values][:MOST_VALUES]:
        of_value = [number.get(value, 0) for number in numbers]
        result |= dict.fromkeys((int(np.argmin(of_value)), int(np.argmax(of_value))))
    return list(result)


def _occurring(split: Any, values: Collection[int] | None) -> list[int]:
    """Return which of ``values``, None for all, occur in the labels; none if labels are not integers."""
    occurring: set[int] = set()
    for index in range(len(split)):
        label = split.label(index)
        if label is None or label.dtype.kind not in "iu":
            return []
        occurring.update(np.unique(label).tolist())
    return sorted(value for value in occurring if values is None or value in values)[:MOST_VALUES]


def _refuse(settings: LoadedSettings, images: Iterable[str], counts: tuple[float, float], ranks: int) -> None:
    size = setting("batch_size", settings.batch_size * settings.accumulate)
    records = [f"{image}: {count:g}" for image, count in zip(images, counts, strict=True)]
    cause, fix = (
        (f"{ranks} processes (WORLD_SIZE)", f"train it as one process, with {size} and {setting('accumulate', 1)}")
        if ranks > 1
        else (setting("accumulate", settings.accumulate), f"choose {size} and {setting('accumulate', 1)}")
    )
    raise SettingsError(
        f"{cause}: the loss of {settings.model.name} is divided by the number or the weight of the labels that count, which "
        f"differs between images ({', '.join(records)}), so the mean of the parts of a batch is not that of the batch; {fix}, "
        "or use a loss without ignored labels and class weights"
    )
