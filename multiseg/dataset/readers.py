"""Read, decode and change the images of batches, in this process or in helper processes."""

from __future__ import annotations

import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset import shared_memory
from multiseg.dataset.decoded import (
    NOTHING,
    Budget,
    Limit,
    PairsInFiles,
    PairsInMemory,
    Place,
    SharedFiles,
)
from multiseg.dataset.helper import Answering, Helper, Lane
from multiseg.dataset.reading import Kept, Split
from multiseg.errors import DatasetError, setting

Array = NDArray[Any]
Indices = NDArray[np.int64]
Pairs = tuple[Array, Array | None]  # features and labels (N, C, H, W)
# of features and labels (C, H, W), which may differ in size, and their positions
Change = Callable[[Sequence[Array], Sequence[Array] | None, Indices], Pairs]

_DIED = (
    f"a process that reads images ended unexpectedly; choose fewer: {setting('data_workers')}, "
    f"or less memory: {setting('image_cache')}"
)


def read_pairs(split: Split, indices: Indices, change: Change | None, kept: Kept | None = None) -> Pairs:
    """Return the pairs at ``indices`` as arrays, changed by ``change``. Raise DatasetError for records that cannot be read.

    Pairs are taken from ``kept``, and those that are not there are put there.
    """
    return split.read(indices, kept) if change is None else change(*split.pairs(indices, kept), indices)


class Readers:
    """Read batches of any split, in this process or in ``workers`` processes that start when the first batch is read.

    Decoded images stay in memory, up to ``limit``. Use as a context manager.
    """

    def __init__(self, workers: int, limit: Limit = NOTHING) -> None:
        self._workers = workers if sys.executable else 0
        self._helpers: list[Helper] = []
        self._ended = False
        self._changing = threading.Lock()  # of the two above: a pass in another thread may start while this object ends
        self._one_pass = threading.Lock()  # a pass that ended early still waits for its batches
        self._limit, self._budget = limit, Budget(limit)
        self._pairs: dict[bytes, PairsInMemory] = {}  # by split, pickled
        self._places: dict[bytes, dict[int, Place]] = {}  # in memory of the processes, by split

    def read(self, split: Split, batches: Iterable[Indices], change: Change | None) -> Generator[Pairs, None, None]:
        """Yield the pairs of each batch, as :func:`read_pairs` returns them, in the order of the batches.

        Raises the error of the first batch that cannot be read, and DatasetError if a process died.
        """
        pickled = pickle.dumps(split)
        if self._workers:
            yield from self._read_elsewhere(split, pickled, batches, change)
            return
        kept = self._pairs.setdefault(pickled, PairsInMemory(self._budget))
        for indices in batches:
            yield read_pairs(split, indices, change, kept)

    def _read_elsewhere(
        self, split: Split, pickled: bytes, batches: Iterable[Indices], change: Change | None
    ) -> Generator[Pairs, None, None]:
        places = self._places.setdefault(pickled, {})
        with self._one_pass:
            helpers = self._start()
            # in turns, so that each process has its second batch while the others have their first
            free = deque(lane for lanes in zip(*(helper.lanes for helper in helpers), strict=True) for lane in lanes)
            busy: deque[Lane] = deque()
            remaining = iter(batches)
            try:
                while True:
                    while free and (indices := next(remaining, None)) is not None:
                        lane = free.popleft()
                        known = {i: places[i] for i in indices.tolist() if i in places}
                        _send(lane, _Request(pickled, indices, change, known))
                        busy.append(lane)
                    if not busy:
                        return
                    answer = _receive(busy[0])
                    lane = busy.popleft()
                    places.update(answer.places)
                    if answer.error is not None:
                        raise answer.error
                    pairs = _pairs_of(answer, lane.memory)
                    split.check_unchanged()
                    free.append(lane)
                    yield pairs
            finally:
                for lane in busy:
                    with suppress(DatasetError):  # of a process that has died, reported already
                        places.update(_receive(lane).places)

    def _start(self) -> list[Helper]:
        """Start the processes unless they run, and return them. Raise DatasetError if one does not start, or all have ended."""
        with self._changing:
            if self._ended:
                raise DatasetError(_DIED)
            if self._helpers:
                return self._helpers
            try:
                limit = self._limit.divided(self._workers)
                try:
                    files = SharedFiles.create(self._workers, limit)
                except OSError:  # such files are limited: images are decoded in each epoch
                    files, limit = [], NOTHING
                try:
                    for number in range(self._workers):
                        self._helpers.append(Helper(_Reading(SharedFiles(files, limit, number)), _DIED, files))
                finally:  # the processes have their own descriptors
                    for file in files:
                        os.close(file)
            except OSError as error:
                words = f"cannot start {self._workers} processes that read images: {error.strerror}"
                raise DatasetError(f"{words}; choose fewer: {setting('data_workers')}") from error
            helpers = self._helpers
        for helper in helpers:
            if not helper.has_started():
                self.end()
                raise DatasetError(_DIED)
        return helpers

    def end(self) -> None:
        """End the processes. A pass in another thread ends as well; its lanes are released when it no longer uses them."""
        with self._changing:
            self._ended = True
            for helper in self._helpers:
                helper.end()
            self._helpers = []
            self._pairs.clear()
            self._places.clear()

    def __enter__(self) -> Readers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


@dataclass(frozen=True)
class _Request:
    """Pairs of a split, which is pickled, and the places of those that have been decoded."""

    split: bytes
    indices: Indices
    change: Change | None
    places: dict[int, Place]


@dataclass(frozen=True)
class _Answer:
    """The types and shapes of a batch's arrays in a lane's memory, or an error, and the places of pairs that were decoded."""

    arrays: list[tuple[str, tuple[int, ...]] | None]
    places: dict[int, Place]
    error: Exception | None = None


@dataclass(frozen=True)
class _Reading:
    """Read the pairs of requests, and return where in the lane's memory the answer is. ``files`` has decoded pairs."""

    files: SharedFiles

    def begin(self) -> Answering:
        opened = lru_cache(maxsize=4)(pickle.loads)  # opening a split reads its index

        def answer(length: int, memory: int) -> tuple[int, int]:
            request: _Request = shared_memory.load(memory, 0, length)
            position, described = 0, []
            kept = PairsInFiles(self.files, request.places)
            try:
                for array in read_pairs(opened(request.split), request.indices, request.change, kept):
                    described.append(None if array is None else (array.dtype.str, array.shape))
                    if array is not None:
                        position = shared_memory.write(memory, array, position)
                return position, shared_memory.store(memory, _Answer(described, kept.added), position)
            except OSError as error:  # of the memory; those of files are DatasetErrors
                words = f"no memory for a batch of images: {error.strerror}; choose less: {setting('image_cache')}"
                return 0, shared_memory.store(memory, _Answer([], kept.added, DatasetError(words)), 0)
            except Exception as error:
                return 0, shared_memory.store(memory, _Answer([], kept.added, error), 0)

        return answer


# Requests and answers are in the lane's memory, not in its pipe: with the places of many pairs they exceed the pipe's buffer, and
# both processes would wait for each other to read.


def _send(lane: Lane, request: _Request) -> None:
    """Send a request. Raise DatasetError if there is no memory for it, or the process has died."""
    try:
        length = shared_memory.store(lane.memory, request, 0)
    except OSError as error:
        raise DatasetError(f"no memory for the numbers of a batch's images: {error.strerror}") from error
    lane.send(length)


def _receive(lane: Lane) -> _Answer:
    """Return the answer to a request. Raise DatasetError if the process has died."""
    answer: _Answer = shared_memory.load(lane.memory, *lane.receive())
    return answer


def _pairs_of(answer: _Answer, memory: int) -> Pairs:
    """Return the pairs in a lane's memory that an answer describes."""
    arrays: list[Array | None] = []
    position = 0
    for described in answer.arrays:
        array = None if described is None else np.empty(described[1], described[0])
        if array is not None:
            position = shared_memory.fill(memory, array, position)
        arrays.append(array)
    features, labels = arrays
    assert features is not None
    return features, labels
