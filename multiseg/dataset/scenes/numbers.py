"""Random numbers and textures of the scenes, the same for a seed in all versions of NumPy."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Numbers:
    """Uniform random numbers of an image. NumPy guarantees their sequence only for a bit generator's raw output."""

    def __init__(self, seed: int, image: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence((seed, image)))

    def array(self, *shape: int) -> Floats:
        """Return numbers from 0 to below 1."""
        raw: NDArray[np.uint64] = self._bits.random_raw(math.prod(shape))
        numbers: Floats = (raw >> np.uint64(11)).reshape(shape) * 2.0**-53
        return numbers

    def uniform(self, low: float, high: float) -> float:
        """Return a number from ``low`` to below ``high``."""
        return low + (high - low) * float(self.array(1)[0])

    def below(self, count: int) -> int:
        """Return a whole number from 0 to below ``count``."""
        return int(self.uniform(0, count))

    def noise(self, *shape: int) -> Floats:
        """Return approximately normal noise of mean 0 and standard deviation 1: the scaled sum of four uniform numbers."""
        noise: Floats = (self.array(4, *shape).sum(axis=0) - 2) * math.sqrt(3)
        return noise

    def clouds(self, size: int, cells: int) -> Floats:
        """Return a smooth random texture (size, size) of 0 to 1, interpolated linearly between ``cells`` + 1 points a side."""
        points = self.array(cells + 1, cells + 1)
        place = np.arange(size) * (cells / size)
        low = place.astype(np.int64)
        part = place - low
        rows = points[low] * (1 - part)[:, np.newaxis] + points[low + 1] * part[:, np.newaxis]
        clouds: Floats = rows[:, low] * (1 - part) + rows[:, low + 1] * part
        return clouds


def any_seed() -> int:
    """Return a seed from the system's entropy."""
    return int(np.random.SeedSequence().generate_state(1)[0])
