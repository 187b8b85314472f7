"""Measures of a network's output against its target: neutral, computed by the core, the same for every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NAMES = ("val_loss", "l1", "l2", "pixel_accuracy", "iou")  # what tells how good a validation was
RISING = ("pixel_accuracy", "iou")  # the more the better
THRESHOLD = 128  # half of the 0..255 range: what is below counts as the object, black on white as in the tutorial


class Metrics:
    """Sums over batches of outputs (N, C, H, W float) and targets (the same shape, 0..255).

    ``l1`` and ``l2`` are the mean absolute and the mean squared difference per element; ``pixel_accuracy`` is the part of
    the elements on the right side of the threshold; ``iou`` is intersection over union of the elements below the threshold
    (the object: DIGITS' triangles are black on white), over all images together.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self.threshold = threshold
        self.count = self.right = self.both = self.either = 0
        self.absolute = self.squared = 0.0

    def add(self, outputs: npt.NDArray[Any], targets: npt.NDArray[Any]) -> None:
        """Count one batch."""
        difference = outputs.astype(np.float64) - targets
        self.count += difference.size
        self.absolute += float(np.abs(difference).sum())
        self.squared += float(np.square(difference).sum())
        found, true = outputs < self.threshold, targets < self.threshold
        self.right += int((found == true).sum())
        self.both += int((found & true).sum())
        self.either += int((found | true).sum())

    def result(self) -> dict[str, float]:
        """The measures so far; IoU is 1 where neither outputs nor targets show any object."""
        count = max(self.count, 1)
        return {
            "l1": self.absolute / count,
            "l2": self.squared / count,
            "pixel_accuracy": self.right / count,
            "iou": self.both / self.either if self.either else 1.0,
        }
