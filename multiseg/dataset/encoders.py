"""Encode image pairs in this process and in helper processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import accumulate, chain, pairwise
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.encoding import Chunk, Encoded, EncodingTask, Sum, encode
from multiseg.errors import DatasetError
from multiseg.worker.lifeline import continue_at_end

_LANES_PER_HELPER = 2
_PENDING_CHUNKS_PER_WORKER = 4  # submitted, and not yet yielded


class Encoders:
    """Encode in parallel: in this process and in ``workers - 1`` helper processes. Use as a context manager.

    This process uses one thread: it feeds the helpers and encodes chunks itself while all helpers are busy.
    """

    def __init__(self, task: EncodingTask, workers: int) -> None:
        self.task = task
        self._sum = task.new_sum()
        self._max_pending = _PENDING_CHUNKS_PER_WORKER * workers
        self._helpers = [_Helper(task) for _ in range(workers - 1 if sys.executable else 0)]
        # A helper is used once it has started; until then, or if it never starts, the others do the work.
        self._starting: dict[Any, _Helper] = {helper.lanes[0].pipe: helper for helper in self._helpers}
        self._free: list[_Lane] = []
        self._busy: dict[Any, tuple[_Lane, int]] = {}

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
                total += helper.lanes[0].receive_total()
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
                done[number] = lane.receive()
                self._free.append(lane)

    def __enter__(self) -> Encoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for helper in self._helpers:
            helper.close()


def _attempt(task: EncodingTask, chunk: Chunk, total: Sum | None) -> Encoded | Exception:
    """Encode a chunk and return its error instead of raising it: errors are raised in the order of the chunks."""
    try:
        return encode(task, chunk, total)
    except Exception as error:
        return error


class _Lane:
    """A channel to one helper: a pipe for requests, and memory shared as a file for the encoded records.

    Records sent through the pipe would be copied five times.
    """

    def __init__(self) -> None:
        pipe, helper_end = Pipe()
        self.pipe: Any = pipe
        self.helper_end: Any = helper_end
        self.memory = os.memfd_create("multiseg-records")

    def send(self, chunk: Chunk | None) -> None:
        """Send the helper a chunk to encode, or None to request its sum. Raise DatasetError if it has died."""
        try:
            self.pipe.send(chunk)
        except OSError as error:
            raise _helper_died() from error

    def receive_total(self) -> NDArray[np.uint64]:
        """Request and return the helper's sum. Raise DatasetError if it has died."""
        self.send(None)
        total: NDArray[np.uint64] = self._receive()
        return total

    def receive(self) -> Encoded | Exception:
        """Return the encoded chunk, or the error of encoding it. Raise DatasetError if the helper has died."""
        answer = self._receive()
        if isinstance(answer, Exception):
            return answer
        feature_sizes, label_sizes, *counts = answer
        ends = accumulate(feature_sizes + label_sizes, initial=0)
        records = [os.pread(self.memory, end - start, start) for start, end in pairwise(ends)]
        return Encoded(records[: len(feature_sizes)], records[len(feature_sizes) :], *counts)

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise _helper_died() from error

    def close(self) -> None:
        """Release the pipe and the memory."""
        self.pipe.close()
        os.close(self.memory)


def _helper_died() -> DatasetError:
    return DatasetError("an encoding process ended unexpectedly; try again with fewer workers")


class _Helper:
    """An encoding process. Its two lanes let it start on the next chunk without waiting for this process.

    It is a new interpreter, not a fork, because threads and loaded frameworks do not survive a fork; and it is not
    started by multiprocessing, which would run the user's script a second time.
    """

    def __init__(self, task: EncodingTask) -> None:
        self.lanes = [_Lane() for _ in range(_LANES_PER_HELPER)]
        descriptors = [(lane.helper_end.fileno(), lane.memory) for lane in self.lanes]
        # The child inherits the signal mask: Ctrl-C reaches only the parent, which then ends its helpers.
        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main({descriptors})"],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
                pass_fds=list(chain(*descriptors)),
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
        for lane in self.lanes:
            lane.helper_end.close()
        with suppress(OSError):  # it may have ended already
            self.lanes[0].pipe.send(task)

    def has_started(self) -> bool:
        """Wait until the process is ready; return False if it ended before."""
        try:
            self.lanes[0].pipe.recv()
        except (EOFError, OSError):
            return False
        return True

    def close(self) -> None:
        """End the process and release its lanes."""
        self._process.kill()
        self._process.wait()
        for lane in self.lanes:
            lane.close()


def main(descriptors: list[tuple[int, int]]) -> None:
    """Run a helper process: encode the received chunks, and return records or errors, until the pipes close."""
    lanes: dict[Any, int] = {Connection(pipe): memory for pipe, memory in descriptors}
    for pipe in lanes:
        continue_at_end(pipe.fileno())
    try:
        first = next(iter(lanes))
        task = first.recv()
        total = task.new_sum()
        first.send("ready")
        while True:
            ready: list[Any] = wait(list(lanes))
            for pipe in ready:
                chunk = pipe.recv()
                pipe.send(total.take() if chunk is None else _answer(task, chunk, total, lanes[pipe]))
    except (EOFError, OSError):  # the parent process has ended
        return


def _answer(task: EncodingTask, chunk: Chunk, total: Sum | None, memory: int) -> Any:
    """Encode a chunk, write its records to ``memory`` and return their sizes, or the error."""
    encoded = _attempt(task, chunk, total)
    if isinstance(encoded, Exception):
        return encoded
    position = 0
    for record in chain(encoded.features, encoded.labels):
        position += os.pwrite(memory, record, position)
    sizes = ([len(record) for record in records] for records in (encoded.features, encoded.labels))
    return *sizes, encoded.statistics, encoded.oriented, encoded.transparent
