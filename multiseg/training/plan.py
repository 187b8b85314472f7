"""When a training validates, snapshots and ends: positions are counted in iterations, intervals in epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Plan:
    """The points of one training. Intervals are in epochs, fractions too: 0.5 is twice an epoch, 2 every other one.

    A point that falls between two iterations is at the later one. The last iteration is a point of every kind.
    """

    images: int
    batch_size: int
    epochs: int
    val_interval: float
    snapshot_interval: float

    @property
    def per_epoch(self) -> int:
        """Iterations of an epoch; the last one's batch may be smaller."""
        return math.ceil(self.images / self.batch_size)

    @property
    def iterations(self) -> int:
        """Iterations of the whole training."""
        return self.per_epoch * self.epochs

    def images_of(self, iteration: int) -> int:
        """Images of the step after so many iterations."""
        return min(self.batch_size, self.images - iteration % self.per_epoch * self.batch_size)

    def epoch(self, iteration: int) -> int | float:
        """Epochs passed after so many iterations: whole, or rounded to six digits."""
        whole, part = divmod(iteration, self.per_epoch)
        return round(whole + part / self.per_epoch, 6) if part else whole

    def validates(self, iteration: int) -> bool:
        """Whether there is a validation after so many iterations; there is one before training."""
        return iteration == 0 or self._due(iteration, self.val_interval)

    def snapshots(self, iteration: int) -> bool:
        """Whether there is a snapshot after so many iterations."""
        return self._due(iteration, self.snapshot_interval)

    def has_row(self, iteration: int) -> bool:
        """Whether the history has a row here: at each validation and at each epoch's end."""
        return self.validates(iteration) or iteration % self.per_epoch == 0

    def next_point(self, iteration: int) -> int:
        """The first iteration after this one at which there is more to do than a step."""
        return next(i for i in range(iteration + 1, self.iterations + 1) if self.has_row(i) or self.snapshots(i))

    def _due(self, iteration: int, interval: float) -> bool:
        if iteration == self.iterations:
            return True
        every = Fraction(str(interval)) * self.per_epoch  # as written: 0.1 is a tenth
        return iteration // every != (iteration - 1) // every
