"""Loss and metrics of a network over batches: the one computation behind validation and test-db."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.dataset.foreground import DARK, Foreground
from multiseg.errors import DatasetError
from multiseg.network import CLASSES, IMAGES, LabelKind, LossTerms, label_kind, loss_of
from multiseg.settings.confusion import Confusion
from multiseg.settings.metrics import LOSS, ImageSums, scores_of


class Evaluation:
    """Accumulates a network's outputs and losses over batches.

    ``labels`` is how the network reads its labels; None decides it by their shape, for runs made before it was stored. ``ignore``
    are class indices that are not counted. Metrics that are not defined for the kind of labels are None, and all are None without
    labels and for outputs that are not numbers.
    """

    def __init__(
        self,
        foreground: Foreground | float = DARK,
        labels: LabelKind | None = None,
        ignore: Collection[int] = (),
    ) -> None:
        self._labels, self._foreground, self._ignore = labels, foreground, ignore
        self._sums: ImageSums | Confusion | None = None
        self._one_label = False  # for each image, instead of one for each pixel
        self._undefined = False
        self._terms: list[tuple[float, float]] | None = []  # totals and counts of the terms of the loss
        self.count = 0  # images

    def add(
        self, output: npt.NDArray[Any], labels: npt.NDArray[Any] | None, terms: LossTerms | None, source: str
    ) -> None:
        """Add one batch: ``output`` (N, C, H, W), ``labels`` (N, C, H, W) or None, and the terms of its loss or None.

        Raises DatasetError naming the database ``source`` if the labels do not have the output's size.
        """
        self.count += len(output)
        self._add_terms(terms)
        if labels is None:
            self._undefined = True
            return
        if np.isnan(output.min(initial=np.inf)):
            self._undefined = True
            return
        kind = self._labels or label_kind(IMAGES, labels.shape[1:], output.shape[1:])
        if kind == CLASSES:
            self._add_classes(output, labels, source)
        elif labels.shape[1] != output.shape[1]:
            self._undefined = True
        else:
            self._sums = self._sums or ImageSums(self._foreground)
            assert isinstance(self._sums, ImageSums)
            labels = _fitting(labels, output.shape[1:], output.shape[1:], source)
            counted = ~np.isin(labels, list(self._ignore))
            self._sums.add(*((output, labels) if counted.all() else (output[counted], labels[counted])))

    def _add_classes(self, output: npt.NDArray[Any], labels: npt.NDArray[Any], source: str) -> None:
        if labels.shape[1:] == (1, 1, 1):
            self._one_label = True
            output = output.reshape(len(output), -1, 1, 1)
        expected = (1, *output.shape[2:])
        self._sums = self._sums or Confusion(output.shape[1], self._ignore)
        assert isinstance(self._sums, Confusion)
        self._sums.add(output, _fitting(labels, expected, output.shape[1:], source))

    def _add_terms(self, terms: LossTerms | None) -> None:
        if terms is None or self._terms is None:
            self._terms = None
            return
        sums = self._terms or [(0.0, 0.0)] * len(terms)
        pairs = zip(sums, terms, strict=True)
        self._terms = [(total + more, count + further) for (total, count), (more, further) in pairs]

    def result(self) -> dict[str, float | None]:
        """Return the loss over all images and the metrics; None for what is not known or not defined.

        The loss does not depend on the division into batches, see :meth:`multiseg.network.Network.evaluate`. It is 0 if no label
        counts.
        """
        loss = loss_of(self._terms) if self._terms else None
        return {LOSS: loss, **scores_of(None if self._undefined else self._sums, self._one_label)}

    def classes(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """Return ``per_class`` and ``confusion`` (rows: labels, columns: predictions) of class indices; {} for other labels.

        ``names`` are the names of the classes.
        """
        if self._undefined or not isinstance(self._sums, Confusion):
            return {}
        return {"per_class": self._sums.per_class(names), "confusion": self._sums.counts.tolist()}

    def class_iou(self, names: Sequence[str] | None = None) -> dict[str, float | None] | None:
        """Return the IoU of each class of pixels by its name (or index); None for other labels."""
        if self._undefined or self._one_label or not isinstance(self._sums, Confusion):
            return None
        return {row["name"]: row["iou"] for row in self._sums.per_class(names)}


def _fitting(
    labels: npt.NDArray[Any], expected: tuple[int, ...], output: tuple[int, ...], source: str
) -> npt.NDArray[Any]:
    """Return the labels. Raise DatasetError unless each has the shape ``expected``."""
    if labels.shape[1:] != expected:
        raise DatasetError(
            f"{source}: has labels of {labels.shape[1:]} (C, H, W) where the network's output is {output}"
        )
    return labels
