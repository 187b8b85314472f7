"""Keep decoded pairs in memory, so that a training of several epochs decodes each image once."""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset import shared_memory
from multiseg.dataset.memory import available_memory
from multiseg.dataset.reading import Pair

Array = NDArray[Any]

MB = 10**6
_STEP = 64 * MB  # of memory that is taken before the available memory is read again
_ALIGNMENT = 64
# bytes of a pair besides its pixels: arrays, their bytes objects, keys; measured with 30,000 small PNG pairs
_OBJECTS = 750


@dataclass(frozen=True)
class Limit:
    """How much memory decoded images may take: ``size`` bytes, and at most a ``share`` of the memory that is available.

    What they take counts as available, so that several programs that fill their share at once leave memory to others.
    """

    size: int
    share: float = math.inf

    def divided(self, processes: int) -> Limit:
        """Return the limit of each of several processes."""
        return Limit(self.size // processes, self.share / processes)


DEFAULT = Limit(4000 * MB, 1 / 4)
NOTHING = Limit(0)


class Budget:
    """The memory that remains within a limit."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._taken = self._permitted = 0

    def take(self, size: int) -> bool:
        """Take the memory of a pair of ``size`` bytes; return False if less remains."""
        taken = self._taken + size + _OBJECTS
        if taken > self._permitted:
            self._permitted = self._limit.size
            if math.isfinite(self._limit.share):
                share = int(self._limit.share * (available_memory() + self._taken))
                self._permitted = min(self._permitted, taken + _STEP, share)
            if taken > self._permitted:
                self._limit = Limit(self._permitted)  # the available memory is not read again for each image
                return False
        self._taken = taken
        return True


class PairsInMemory:
    """The pairs of one split in the memory of this process, as multiseg.dataset.reading.Kept."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._pairs: dict[int, Pair] = {}

    def get(self, index: int) -> Pair | None:
        return self._pairs.get(index)

    def put(self, index: int, pair: Pair) -> None:
        if self._budget.take(sum(array.nbytes for array in pair if array is not None)):
            self._pairs[index] = pair


@dataclass(frozen=True)
class Place:
    """Where a pair is kept: the number of a file, and the data types, shapes and offsets of its feature and its label."""

    file: int
    arrays: tuple[tuple[str, tuple[int, ...], int] | None, ...]


class SharedFiles:
    """Pairs in files in memory, which several processes read; each process writes to one of them.

    ``descriptors`` are the files; ``own`` is the number of the one that this process writes to, up to ``limit``.
    """

    def __init__(self, descriptors: Sequence[int], limit: Limit, own: int) -> None:
        self._descriptors, self._size, self._own = descriptors, limit.size, own
        self._budget, self._end = Budget(limit), 0

    @staticmethod
    def create(count: int, limit: Limit) -> list[int]:
        """Return the descriptors of ``count`` empty files; the system provides their memory as they are written.

        Raises OSError if they cannot be created.
        """
        descriptors: list[int] = []
        try:
            for _ in range(count):
                descriptors.append(os.memfd_create("multiseg-decoded"))
                os.ftruncate(descriptors[-1], limit.size)
        except OSError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        return descriptors

    @cached_property
    def _memories(self) -> list[mmap.mmap]:
        return [mmap.mmap(descriptor, self._size, prot=mmap.PROT_READ) for descriptor in self._descriptors]

    def pair(self, place: Place) -> Pair:
        """Return the pair at a place, read-only."""
        memory = self._memories[place.file]
        feature, label = (
            None if array is None else np.frombuffer(memory, array[0], math.prod(array[1]), array[2]).reshape(array[1])
            for array in place.arrays
        )
        assert feature is not None
        return feature, label

    def add(self, pair: Pair) -> Place | None:
        """Write a pair and return its place; None if there is no space."""
        end, arrays = self._end, []
        for array in pair:
            arrays.append(None if array is None else (array.dtype.str, array.shape, end))
            end += 0 if array is None else -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        if not self._budget.take(end - self._end):
            return None
        self._end = end
        try:
            for array, described in zip(pair, arrays, strict=True):
                if array is not None and described is not None:
                    shared_memory.write(self._descriptors[self._own], array, described[2])
        except OSError:  # no memory: what is not kept is decoded again
            self._budget = Budget(NOTHING)
            return None
        return Place(self._own, tuple(arrays))


class PairsInFiles:
    """The pairs of one split in ``files``, at ``places`` by position, as multiseg.dataset.reading.Kept; new ones in ``added``."""

    def __init__(self, files: SharedFiles, places: Mapping[int, Place]) -> None:
        self._files, self._places = files, places
        self.added: dict[int, Place] = {}

    def get(self, index: int) -> Pair | None:
        place = self._places.get(index)
        try:
            return None if place is None else self._files.pair(place)
        except OSError:  # there are no addresses for the files: the image is decoded again
            return None

    def put(self, index: int, pair: Pair) -> None:
        place = self._files.add(pair)
        if place is not None:
            self.added[index] = place
