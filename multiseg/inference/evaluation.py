"""Loss and metrics of a network over batches: the one computation behind validation and test-db."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from multiseg.errors import DatasetError
from multiseg.network import CLASSES, IMAGES, LabelKind, label_kind
from multiseg.settings.metrics import LOSS, MEASURES, THRESHOLD, ImageSums


class Evaluation:
    """Accumulates a network's outputs and losses over batches.

    ``labels`` is how the network reads its labels; None decides it by their shape, for runs made before it was stored. Metrics of
    images are defined for labels that are images: of class indices, and without labels, they are None.
    """

    def __init__(self, threshold: float = THRESHOLD, labels: LabelKind | None = None) -> None:
        self._labels = labels
        self._sums: ImageSums | None = ImageSums(threshold)
        self._loss: float | None = 0.0
        self.count = 0  # images

    def add(self, output: npt.NDArray[Any], labels: npt.NDArray[Any] | None, loss: float | None, source: str) -> None:
        """Add one batch: ``output`` (N, C, H, W), ``labels`` (N, C, H, W) or None, and the mean ``loss`` over it or None.

        Raises DatasetError naming the database ``source`` if labels that are images do not have the output's size.
        """
        self.count += len(output)
        self._loss = None if loss is None or self._loss is None else self._loss + loss * len(output)
        if labels is None or not self._are_images(output, labels):
            self._sums = None
        elif labels.shape != output.shape:
            raise DatasetError(
                f"{source}: has labels of {labels.shape[1:]} (C, H, W) where the network's output is {output.shape[1:]}"
            )
        elif self._sums is not None:
            self._sums.add(output, labels)

    def _are_images(self, output: npt.NDArray[Any], labels: npt.NDArray[Any]) -> bool:
        kind = self._labels or label_kind(IMAGES, labels.shape[1:], output.shape[1:])
        return kind != CLASSES and labels.shape[1] == output.shape[1]

    def result(self) -> dict[str, float | None]:
        """Return the mean loss over all images and the metrics; None for what is not known or not defined."""
        loss = self._loss / self.count if self.count and self._loss is not None else None
        scores: dict[str, float | None] = dict.fromkeys(MEASURES)
        if self.count and self._sums is not None:
            scores |= self._sums.scores()
        return {LOSS: loss, **scores}
