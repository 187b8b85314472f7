"""The confusion matrix of class indices, from which all metrics of class labels are computed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.images.scores import highest

TOP = 5  # classes with the highest scores, among which the label counts as found
_PIXELS = 1 << 16  # that are counted at once, which bounds the memory for intermediate arrays

Counts = npt.NDArray[np.int64]


class Confusion:
    """Counts of labels by their class (rows) and by the class that a network predicts (columns), accumulated over batches.

    ``counts`` is int64 (classes, classes), ``in_top`` the number of labels of whole images among the TOP highest scores.
    Labels in ``ignore``, and those that are no class of the network's output, are not counted.

    A class that occurs neither in the labels nor in the predictions is *absent*: it has no metrics, and is left out of all means.
    The other classes have the metrics of scikit-learn with ``zero_division=0`` and of torchmetrics' macro averages.
    """

    def __init__(self, classes: int, ignore: Collection[int] = ()) -> None:
        self.classes, self.ignore = classes, frozenset(ignore)
        self.counts: Counts = np.zeros((classes, classes), np.int64)
        self.in_top = 0

    def add(self, scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        """Add scores (N, classes, H, W) and labels (N, 1, H, W). The lowest of the classes with the highest score is predicted.

        Raises ValueError for shapes that do not correspond.
        """
        count, classes, *size = scores.shape
        if classes != self.classes or labels.shape != (count, 1, *size):
            raise ValueError(f"scores are {scores.shape}, labels are {labels.shape}; there are {self.classes} classes")
        if size == [1, 1]:
            self._add_images(scores.reshape(count, classes).T, labels.reshape(-1))
            return
        for one, label in zip(scores, labels, strict=True):
            self.add_classes(highest(one), label[0])

    def add_classes(self, predicted: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        """Add predicted classes and labels, arrays of the same shape. They do not count for ``in_top``.

        Raises ValueError for different shapes.
        """
        if predicted.shape != labels.shape:
            raise ValueError(f"predicted classes are {predicted.shape}, labels are {labels.shape}")
        predicted, labels = predicted.reshape(-1), labels.reshape(-1)
        for start in range(0, len(labels), _PIXELS):
            truth, counted = self.counted(labels[start : start + _PIXELS])
            self._count(truth[counted], predicted[start : start + _PIXELS][counted])

    def counted(self, labels: npt.NDArray[Any]) -> tuple[Counts, npt.NDArray[np.bool_]]:
        """Return the labels as whole numbers, and which of them count."""
        truth = labels.astype(np.int64)
        counted = (truth >= 0) & (truth < self.classes) & (truth == labels)
        for value in self.ignore:
            counted &= truth != value
        return truth, counted

    def _count(self, truth: Counts, predicted: npt.NDArray[Any]) -> None:
        pairs = np.bincount(truth * self.classes + predicted, minlength=self.classes**2)
        self.counts += pairs.reshape(self.classes, self.classes)

    def _add_images(self, scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> None:
        """Add scores (classes, N) and labels (N,) of whole images."""
        truth, counted = self.counted(labels)
        truth, scores = truth[counted], scores[:, counted]
        self._count(truth, highest(scores[:, None])[0])
        if self.classes > TOP:
            own = np.take_along_axis(scores, truth[None], axis=0)
            # of equal scores the lower class is the higher in rank
            before = (scores > own) | ((scores == own) & (np.arange(self.classes)[:, None] < truth))
            self.in_top += int((before.sum(axis=0) < TOP).sum())

    @property
    def total(self) -> int:
        """The number of counted labels."""
        return int(self.counts.sum())

    @property
    def correct(self) -> Counts:
        """The number of correctly predicted labels of each class."""
        return np.diagonal(self.counts)

    @property
    def true(self) -> Counts:
        """The number of labels of each class."""
        row_sums: Counts = self.counts.sum(axis=1)
        return row_sums

    @property
    def predicted(self) -> Counts:
        """The number of predictions of each class."""
        column_sums: Counts = self.counts.sum(axis=0)
        return column_sums

    @property
    def accuracy(self) -> float | None:
        """The fraction of labels that are predicted correctly; None without labels."""
        return int(self.correct.sum()) / self.total if self.total else None

    @property
    def top(self) -> float | None:
        """The fraction of labels among the TOP highest scores; None without labels, and for at most TOP classes."""
        return self.in_top / self.total if self.total and self.classes > TOP else None

    @property
    def class_accuracy(self) -> list[float | None]:
        """Correct predictions / labels of each class (recall): 0 for a class that is only predicted, None for an absent one."""
        return self._ratios(self.correct, self.true)

    @property
    def class_iou(self) -> list[float | None]:
        """Intersection over union of each class; None for an absent one."""
        return self._ratios(self.correct, self.true + self.predicted - self.correct)

    @property
    def class_dice(self) -> list[float | None]:
        """Dice's coefficient (F1) of each class, 2 |A and B| / (|A| + |B|); None for an absent one."""
        return self._ratios(2 * self.correct, self.true + self.predicted)

    @property
    def frequency_weighted_iou(self) -> float | None:
        """The mean IoU weighted by the classes' fractions of the labels; None without labels."""
        if not self.total:
            return None
        counts: list[int] = self.true.tolist()
        return (
            sum(iou * count for iou, count in zip(self.class_iou, counts, strict=True) if iou is not None) / self.total
        )

    def _ratios(self, part: Counts, whole: Counts) -> list[float | None]:
        present = (self.true + self.predicted > 0).tolist()
        rows = zip(present, part.tolist(), whole.tolist(), strict=True)
        return [(a / b if b else 0.0) if occurs else None for occurs, a, b in rows]

    def per_class(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return a dict for each class: class (index), name, accuracy, iou, dice, and pixels, the number of its labels."""
        columns = zip(self.class_accuracy, self.class_iou, self.class_dice, self.true.tolist(), strict=True)
        return [
            {
                "class": index,
                "name": names[index] if names is not None and index < len(names) else str(index),
                "accuracy": accuracy,
                "iou": iou,
                "dice": dice,
                "pixels": pixels,
            }
            for index, (accuracy, iou, dice, pixels) in enumerate(columns)
        ]


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
