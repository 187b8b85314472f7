"""When to validate, write snapshots and end: positions are counted in iterations, intervals in epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Plan:
    """The schedule of validations and snapshots. Intervals are in epochs and may be fractional: 0.5 is twice an epoch.

    A point between two iterations is moved to the later one. The last iteration has both a validation and a snapshot.
    """

    images: int
    batch_size: int
    epochs: int
    val_interval: float
    snapshot_interval: float

    @property
    def per_epoch(self) -> int:
        """Iterations per epoch; the last batch of an epoch may be smaller."""
        return math.ceil(self.images / self.batch_size)

    @property
    def iterations(self) -> int:
        """Iterations of the whole training."""
        return self.per_epoch * self.epochs

    def images_of(self, iteration: int) -> int:
        """Return the number of images of the step with index ``iteration`` (from 0)."""
        return min(self.batch_size, self.images - iteration % self.per_epoch * self.batch_size)

    def epoch(self, iteration: int) -> int | float:
        """Return the epochs completed after ``iteration`` iterations: an int, or a float rounded to six digits."""
        whole, remainder = divmod(iteration, self.per_epoch)
        return round(whole + remainder / self.per_epoch, 6) if remainder else whole

    def validates(self, iteration: int) -> bool:
        """Return whether to validate after ``iteration`` iterations; also true before training (0)."""
        return iteration == 0 or self._due(iteration, self.val_interval)

    def snapshots(self, iteration: int) -> bool:
        """Return whether to write a snapshot after ``iteration`` iterations."""
        return self._due(iteration, self.snapshot_interval)

    def has_row(self, iteration: int) -> bool:
        """Return whether the history has a row after ``iteration`` iterations: at validations and at the end of epochs."""
        return self.validates(iteration) or iteration % self.per_epoch == 0

    def next_point(self, iteration: int) -> int:
        """Return the first later iteration with a row of the history or a snapshot."""
        return next(i for i in range(iteration + 1, self.iterations + 1) if self.has_row(i) or self.snapshots(i))

    def _due(self, iteration: int, interval: float) -> bool:
        if iteration == self.iterations:
            return True
        period = Fraction(str(interval)) * self.per_epoch  # exact decimal: 0.1 is one tenth
        return iteration // period != (iteration - 1) // period
