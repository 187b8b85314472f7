"""Check that labels are class indices of a network's outputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.dataset.dataset import Dataset
from multiseg.dataset.reading import Split
from multiseg.errors import DatasetError, setting


def check_classes(dataset: Dataset, classes: int, ignored: Collection[int]) -> None:
    """Raise DatasetError naming the first record with a label that is no class and not ignored.

    All labels are read unless dataset.json shows that every one is valid.
    """
    valid = {*range(classes), *ignored}
    for name, split in (("train", dataset.train), ("val", dataset.val)):
        counts = dataset.label_counts(name)
        if counts is None or not valid.issuperset(counts):
            _check_split(split, classes, ignored)


def _check_split(split: Split, classes: int, ignored: Collection[int]) -> None:
    for index in range(len(split)):
        label = split.label(index)
        if label is not None:
            check_labels(split, [index], [label], classes, ignored)


def check_labels(
    split: Split, indices: Iterable[Any], labels: Iterable[npt.NDArray[Any]], classes: int, ignored: Collection[int]
) -> None:
    """Raise DatasetError naming the record and the value of a label that is no class, 0 to ``classes - 1``, and not ignored.

    ``labels`` are those of the split at the positions ``indices``.
    """
    for index, label in zip(indices, labels, strict=True):
        if not label.size or (label.min() >= 0 and label.max() < classes):
            continue
        wrong = ((label < 0) | (label >= classes)) & ~np.isin(label, list(ignored))
        if wrong.any():
            value = label[wrong].flat[0]
            raise DatasetError(
                f"{split.label_record(int(index))}: has the class {value:g}; the network has {classes} outputs, for the classes "
                f"0 to {classes - 1}; correct label or network, or leave it out with {setting('ignore_index', int(value))}"
            )
