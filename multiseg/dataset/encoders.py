"""Encode image pairs in this process and in helper processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset import shared_memory
from multiseg.dataset.encoding import Chunk, Encoded, EncodingTask, Sum, encode
from multiseg.dataset.helper import Answering, Helper, Lane

_DIED = "an encoding process ended unexpectedly; try again with fewer workers"
_PENDING_CHUNKS_PER_WORKER = 4  # submitted, and not yet yielded
_REUSED = 31 << 20  # bytes; glibc raises its limits for blocks of up to 32 MiB


class Encoders:
    """Encode in parallel: in this process and in ``workers - 1`` helper processes. Use as a context manager.

    This process uses one thread: it feeds the helpers and encodes chunks itself while all helpers are busy.
    """

    def __init__(self, task: EncodingTask, workers: int) -> None:
        _keep_freed_memory()
        self.task = task
        self._sum = task.new_sum()
        self._max_pending = _PENDING_CHUNKS_PER_WORKER * workers
        self._helpers = [Helper(_Encoding(task), _DIED) for _ in range(workers - 1 if sys.executable else 0)]
        # A helper is used once it has started; until then, or if it never starts, the others do the work.
        self._starting: dict[Any, Helper] = {helper.lanes[0].pipe: helper for helper in self._helpers}
        self._free: list[Lane] = []
        self._busy: dict[Any, tuple[Lane, int]] = {}

    def map(self, chunks: Iterable[Chunk]) -> Iterator[Encoded]:
        """Encode chunks and yield the results in the order of the chunks.

        Raises the error of :func:`encode` for the first invalid chunk, and DatasetError if a helper process died.
        """
        remaining = iter(chunks)
        chunk = next(remaining, None)
        done: dict[int, Encoded | Exception] = {}
        submitted = yielded = 0
        while chunk is not None or yielded < submitted:
            full = submitted - yielded >= self._max_pending
            self._collect(done, block=chunk is None or full)
            if chunk is not None and not full:
                if self._free:
                    lane = self._free.pop()
                    lane.send(chunk)
                    self._busy[lane.pipe] = lane, submitted
                else:
                    done[submitted] = _attempt(self.task, chunk, self._sum)
                submitted += 1
                chunk = next(remaining, None)
            while yielded in done:
                result = done.pop(yielded)
                if isinstance(result, Exception):
                    raise result
                yield result
                yielded += 1

    def take_total(self) -> NDArray[np.uint64] | None:
        """Return the sum of all features since the last call, ``(C, H, W)``; None for mixed sizes."""
        if self._sum is None:
            return None
        total = self._sum.take()
        for helper in self._helpers:
            if helper.lanes[0] in self._free:
                helper.lanes[0].send(None)
                total += helper.lanes[0].receive()
        return total

    def _collect(self, done: dict[int, Encoded | Exception], block: bool) -> None:
        """Collect finished results from the helpers; with ``block``, wait for at least one."""
        pipes = [*self._starting, *self._busy]
        ready: list[Any] = wait(pipes, None if block else 0) if pipes else []
        for pipe in ready:
            if pipe in self._starting:
                helper = self._starting.pop(pipe)
                if helper.has_started():
                    self._free += helper.lanes
            else:
                lane, number = self._busy.pop(pipe)
                done[number] = _received(lane)
                self._free.append(lane)

    def __enter__(self) -> Encoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for helper in self._helpers:
            helper.close()


def _keep_freed_memory() -> None:
    """Let images and records reuse the memory of earlier ones, where the C library is glibc.

    At first it maps blocks of 128 kB and more anew and returns freed ones to the system, so that each costs page faults.
    Freeing a mapped block raises this limit to its size (mallopt(3), M_MMAP_THRESHOLD). Nothing is written to the block.
    """
    np.empty(_REUSED, np.uint8)


def _attempt(task: EncodingTask, chunk: Chunk, total: Sum | None) -> Encoded | Exception:
    """Encode a chunk and return its error instead of raising it: errors are raised in the order of the chunks."""
    try:
        return encode(task, chunk, total)
    except Exception as error:
        return error


@dataclass(frozen=True)
class _Encoding:
    """Encode chunks, and return their records in the lane's memory and their sizes, or the error; for None, the new sum."""

    task: EncodingTask

    def begin(self) -> Answering:
        _keep_freed_memory()
        total = self.task.new_sum()

        def answer(chunk: Chunk | None, memory: int) -> Any:
            if chunk is None:
                assert total is not None
                return total.take()
            encoded = _attempt(self.task, chunk, total)
            if isinstance(encoded, Exception):
                return encoded
            position = 0
            for record in chain(encoded.features, encoded.labels):
                position = shared_memory.write(memory, record, position)
            sizes = ([len(record) for record in records] for records in (encoded.features, encoded.labels))
            return *sizes, encoded.statistics, encoded.oriented, encoded.transparent

        return answer


def _received(lane: Lane) -> Encoded | Exception:
    """Return the encoded chunk of a lane, or the error of encoding it. Raise DatasetError if the helper has died."""
    answer = lane.receive()
    if isinstance(answer, Exception):
        return answer
    feature_sizes, label_sizes, *counts = answer
    ends = accumulate(feature_sizes + label_sizes, initial=0)
    records = [os.pread(lane.memory, end - start, start) for start, end in pairwise(ends)]
    return Encoded(records[: len(feature_sizes)], records[len(feature_sizes) :], *counts)
