"""Turn image pairs into Datum records, in this process and in helper processes."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.records import encoded_datum, raw_datum
from multiseg.errors import DatasetError, ImageError
from multiseg.images import Channels, Pixels, decode_image, encode_image, image_to_array, open_plain_png, read_bytes

RecordEncoding = Literal["none", "png", "jpg"]
Shape = tuple[int, int, int]
Chunk = list[tuple[str, str]]

MOST_PAIRS = 256  # in a chunk
_LANES = 2
_CHUNKS_UNDER_WAY = 4  # for each worker: begun, and not yet given on


@dataclass(frozen=True)
class EncodingTask:
    """The conversion of images to records that all pairs of a dataset have in common.

    ``shape`` and ``label_shape`` are the first pair's.

    With ``mixed_sizes`` pairs may differ in height and width, and there is no mean.
    """

    channels: Channels
    feature_encoding: RecordEncoding
    label_encoding: RecordEncoding
    mixed_sizes: bool
    first: tuple[str, str]
    shape: Shape
    label_shape: Shape

    def new_sum(self) -> Sum | None:
        """A sum of features, to make the mean of; None for mixed sizes."""
        return None if self.mixed_sizes else Sum(self.shape)


@dataclass(frozen=True)
class Encoded:
    """A chunk's records in order."""

    features: list[bytes]
    labels: list[bytes]


class Sum:
    """The sum of images ``(C, H, W)`` uint8. As it is exact, it does not depend on who added what."""

    def __init__(self, shape: Shape) -> None:
        self._whole = np.zeros(shape, np.uint64)
        self._part = np.zeros(shape, np.uint16)  # so many bytes fit 16 bits, which are added much faster than 64
        self._count = 0

    def add(self, image: Pixels) -> None:
        """Add an image."""
        self._part += image
        self._count += 1
        if self._count == 257:
            self._fold()

    def take(self) -> NDArray[np.uint64]:
        """Return the sum and start again from zero."""
        self._fold()
        whole, self._whole = self._whole, np.zeros_like(self._whole)
        return whole

    def _fold(self) -> None:
        self._whole += self._part
        self._part[:] = 0
        self._count = 0


def encode(task: EncodingTask, chunk: Chunk, total: Sum | None) -> Encoded:
    """Encode some pairs and add their features to ``total``.

    Raises ImageError or DatasetError naming the first file that is wrong.
    """
    features, labels = [], []
    for feature_path, label_path in chunk:
        feature, feature_record = _record(feature_path, task.channels, task.feature_encoding)
        label, label_record = _record(label_path, task.channels, task.label_encoding)
        if feature.shape[1:] != label.shape[1:]:
            raise DatasetError(
                f"{feature_path} is {size_text(feature)} and its target {label_path} {size_text(label)}; "
                "make them the same size"
            )
        _compare(feature, task.shape, feature_path, task.first[0], task.mixed_sizes)
        _compare(label, task.label_shape, label_path, task.first[1], task.mixed_sizes)
        features.append(feature_record)
        labels.append(label_record)
        if total is not None:
            total.add(feature)
    return Encoded(features, labels)


def size_text(image: Pixels) -> str:
    """Say an image's width and height as people do."""
    return f"{image.shape[2]}x{image.shape[1]}"


def _record(path: str, channels: Channels, encoding: RecordEncoding) -> tuple[Pixels, bytes]:
    data = read_bytes(path)
    if encoding == "png":
        plain = open_plain_png(data)
        if plain is not None and channels in ("none", plain.mode):
            # The file is what would be encoded from its pixels; taking it over saves the larger part of the work.
            pixels = image_to_array(plain)
            return pixels, encoded_datum(data, pixels.shape)
    pixels = decode_image(data, path, channels)
    if encoding == "none":
        return pixels, raw_datum(pixels)
    return pixels, encoded_datum(encode_image(pixels, encoding), pixels.shape)


def _compare(image: Pixels, shape: Shape, path: str, first: str, mixed_sizes: bool) -> None:
    if image.shape[0] != shape[0]:
        kind = {1: "grey", 3: "RGB"}
        raise ImageError(
            f"{path} is {kind[image.shape[0]]} and {first} {kind[shape[0]]}; choose channels L or RGB to convert them"
        )
    if not mixed_sizes and image.shape != shape:
        raise ImageError(
            f"{path} is {size_text(image)} and {first} {shape[2]}x{shape[1]}; "
            "make all images one size, or allow mixed sizes"
        )


def pair_bytes(task: EncodingTask) -> int:
    """How many bytes of pixels the first pair has."""
    return math.prod(task.shape) + math.prod(task.label_shape)


class Encoders:
    """Several encoders at work: this process and ``workers - 1`` helper processes. Use as a context manager.

    All in one thread: this process feeds the helpers, and encodes itself when it has nothing else to do.
    """

    def __init__(self, task: EncodingTask, workers: int) -> None:
        self._task = task
        self._sum = task.new_sum()
        self._most = _CHUNKS_UNDER_WAY * workers
        self._helpers = [_Helper(task) for _ in range(workers - 1 if sys.executable else 0)]
        # A helper takes part once it has started; until then, or if it never does, the others do the work.
        self._starting: dict[Any, _Helper] = {helper.lanes[0].pipe: helper for helper in self._helpers}
        self._free: list[_Lane] = []
        self._busy: dict[Any, tuple[_Lane, int]] = {}

    def map(self, chunks: Iterable[Chunk]) -> Iterator[Encoded]:
        """Encode chunks; the results come in the chunks' order, whichever encoder finishes first.

        Raises what :func:`encode` raises for the first chunk that is wrong, and DatasetError for a helper that died.
        """
        remaining = iter(chunks)
        chunk = next(remaining, None)
        done: dict[int, Encoded | Exception] = {}
        begun = given = 0
        while chunk is not None or given < begun:
            full = begun - given >= self._most
            self._collect(done, block=chunk is None or full)
            if chunk is not None and not full:
                if self._free:
                    lane = self._free.pop()
                    lane.send(chunk)
                    self._busy[lane.pipe] = lane, begun
                else:
                    done[begun] = _attempt(self._task, chunk, self._sum)
                begun += 1
                chunk = next(remaining, None)
            while given in done:
                result = done.pop(given)
                if isinstance(result, Exception):
                    raise result
                yield result
                given += 1

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
        """Take what the helpers have ready; wait for it if there is nothing else to do."""
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
    """Return the error too: it counts when the chunks before have proved sound."""
    try:
        return encode(task, chunk, total)
    except Exception as error:
        return error


class _Lane:
    """One of the ways to and from a helper: a pipe for orders, and memory that both processes have as a file.

    Records through the pipe would be copied five times.
    """

    def __init__(self) -> None:
        pipe, theirs = Pipe()
        self.pipe: Any = pipe
        self.theirs: Any = theirs
        self.memory = os.memfd_create("multiseg-records")

    def send(self, chunk: Chunk | None) -> None:
        """Give the helper a chunk to encode, or None to ask for its sum. Raises DatasetError where it is dead."""
        try:
            self.pipe.send(chunk)
        except OSError as error:
            raise _died() from error

    def receive_total(self) -> NDArray[np.uint64]:
        """Ask for and return the helper's sum. Raises DatasetError where it is dead."""
        self.send(None)
        total: NDArray[np.uint64] = self._receive()
        return total

    def receive(self) -> Encoded | Exception:
        """Return what came of the chunk. Raises DatasetError where the helper is dead."""
        answer = self._receive()
        if isinstance(answer, Exception):
            return answer
        feature_sizes, label_sizes = answer
        ends = accumulate(feature_sizes + label_sizes, initial=0)
        records = [os.pread(self.memory, end - start, start) for start, end in pairwise(ends)]
        return Encoded(records[: len(feature_sizes)], records[len(feature_sizes) :])

    def _receive(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise _died() from error

    def close(self) -> None:
        """Release the pipe and the memory."""
        self.pipe.close()
        os.close(self.memory)


def _died() -> DatasetError:
    return DatasetError("an encoding process ended unexpectedly; try again with fewer workers")


class _Helper:
    """An encoding process, with two lanes, so that it has its next chunk at hand when it is through with one.

    It is a fresh interpreter and not a fork, since the program may have threads or a framework loaded, which forks do
    not survive; and not started by multiprocessing, which would run the user's script a second time.
    """

    def __init__(self, task: EncodingTask) -> None:
        self.lanes = [_Lane() for _ in range(_LANES)]
        descriptors = [(lane.theirs.fileno(), lane.memory) for lane in self.lanes]
        # The child inherits what is blocked: Ctrl-C is for the parent alone, which then ends its helpers.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main({descriptors})"],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
                pass_fds=list(chain(*descriptors)),
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for lane in self.lanes:
            lane.theirs.close()
        with suppress(OSError):  # it may have ended already
            self.lanes[0].pipe.send(task)

    def has_started(self) -> bool:
        """Wait for the process to be ready; False if it ended before that."""
        try:
            self.lanes[0].pipe.recv()
        except (EOFError, OSError):
            return False
        return True

    def close(self) -> None:
        """End the process and release what is left of it."""
        self._process.kill()
        self._process.wait()
        for lane in self.lanes:
            lane.close()


def main(descriptors: list[tuple[int, int]]) -> None:
    """Run a helper process: answer chunks with what :func:`encode` returns or raises, until the pipes close."""
    lanes: dict[Any, int] = {Connection(pipe): memory for pipe, memory in descriptors}
    try:
        first = next(iter(lanes))
        task = first.recv()
        total = task.new_sum()
        first.send("ready")
        while True:
            asking: list[Any] = wait(list(lanes))
            for pipe in asking:
                chunk = pipe.recv()
                pipe.send(total.take() if chunk is None else _answer(task, chunk, total, lanes[pipe]))
    except (EOFError, OSError):  # the parent is gone
        return


def _answer(task: EncodingTask, chunk: Chunk, total: Sum | None, memory: int) -> Any:
    """Encode a chunk, write its records to ``memory`` and return their sizes, or the error."""
    encoded = _attempt(task, chunk, total)
    if isinstance(encoded, Exception):
        return encoded
    position = 0
    for record in chain(encoded.features, encoded.labels):
        position += os.pwrite(memory, record, position)
    return [len(record) for record in encoded.features], [len(record) for record in encoded.labels]
