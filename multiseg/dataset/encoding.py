"""Turn image pairs into Datum records, in this process and in helper processes."""

from __future__ import annotations

import math
import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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

MOST_PAIRS = 256  # in a chunk: the sum of so many bytes fits 16 bits
_LANES = 2


@dataclass(frozen=True)
class Job:
    """What all pairs of a dataset have in common. ``shape`` and ``label_shape`` are the first pair's.

    With ``mixed_sizes`` pairs may differ in height and width, and there is no mean.
    """

    channels: Channels
    feature_encoding: RecordEncoding
    label_encoding: RecordEncoding
    mixed_sizes: bool
    first: tuple[str, str]
    shape: Shape
    label_shape: Shape


@dataclass(frozen=True)
class Encoded:
    """A chunk's records in order, and the sum of its features ``(C, H, W)`` uint16; None for mixed sizes."""

    features: list[bytes]
    labels: list[bytes]
    total: NDArray[np.uint16] | None


def encode(job: Job, chunk: Chunk) -> Encoded:
    """Encode some pairs. Raises ImageError or DatasetError naming the first file that is wrong."""
    features, labels = [], []
    total = None if job.mixed_sizes else np.zeros(job.shape, np.uint16)
    for feature_path, label_path in chunk:
        feature, feature_record = _record(feature_path, job.channels, job.feature_encoding)
        label, label_record = _record(label_path, job.channels, job.label_encoding)
        if feature.shape[1:] != label.shape[1:]:
            raise DatasetError(
                f"{feature_path} is {size_text(feature)} and its target {label_path} {size_text(label)}; "
                "make them the same size"
            )
        _compare(feature, job.shape, feature_path, job.first[0], job.mixed_sizes)
        _compare(label, job.label_shape, label_path, job.first[1], job.mixed_sizes)
        features.append(feature_record)
        labels.append(label_record)
        if total is not None:
            total += feature
    return Encoded(features, labels, total)


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


def pair_bytes(job: Job) -> int:
    """How many bytes of pixels the first pair has."""
    return math.prod(job.shape) + math.prod(job.label_shape)


class Encoders:
    """Several encoders at work: a thread here and ``workers - 1`` helper processes. Use as a context manager.

    One worker alone encodes in the thread that asks for the results.
    """

    def __init__(self, job: Job, workers: int) -> None:
        self._job = job
        self._workers = workers
        self._idle: queue.SimpleQueue[Callable[[Chunk], Encoded]] = queue.SimpleQueue()
        self._idle.put(lambda chunk: encode(job, chunk))
        self._pool = ThreadPoolExecutor(1 + _LANES * (workers - 1), thread_name_prefix="multiseg-encoder")
        self._helpers = [_Helper(job) for _ in range(workers - 1)]
        for helper in self._helpers:
            self._pool.submit(self._enlist, helper)

    def map(self, chunks: Iterable[Chunk]) -> Iterator[Encoded]:
        """Encode chunks; the results come in the chunks' order, whichever encoder finishes first."""
        if self._workers == 1:
            yield from (encode(self._job, chunk) for chunk in chunks)
            return
        under_way: deque[Future[Encoded]] = deque()
        for chunk in chunks:
            under_way.append(self._pool.submit(self._encode, chunk))
            if len(under_way) > 3 * self._workers:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def _enlist(self, helper: _Helper) -> None:
        """Let a helper take part once it has started; until then, or if it never does, the others do the work."""
        if helper.has_started():
            for lane in helper.lanes:
                self._idle.put(lane.encode)

    def _encode(self, chunk: Chunk) -> Encoded:
        encoder = self._idle.get()
        try:
            return encoder(chunk)
        finally:
            self._idle.put(encoder)

    def __enter__(self) -> Encoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for helper in self._helpers:
            helper.stop()
        self._pool.shutdown(cancel_futures=True)
        for helper in self._helpers:
            helper.close()


class _Lane:
    """One of the ways to and from a helper: a pipe for orders, and memory that both processes have as a file.

    Records through the pipe would be copied five times.
    """

    def __init__(self) -> None:
        pipe, theirs = Pipe()
        self.pipe: Any = pipe
        self.theirs: Any = theirs
        self.memory = os.memfd_create("multiseg-records")

    def encode(self, chunk: Chunk) -> Encoded:
        """Have a chunk encoded. Raises what :func:`encode` raises."""
        try:
            self.pipe.send(chunk)
            answer = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise DatasetError("an encoding process ended unexpectedly; try again with fewer workers") from error
        if isinstance(answer, Exception):
            raise answer
        feature_sizes, label_sizes, total = answer
        ends = accumulate(feature_sizes + label_sizes, initial=0)
        records = [os.pread(self.memory, end - start, start) for start, end in pairwise(ends)]
        return Encoded(records[: len(feature_sizes)], records[len(feature_sizes) :], total)

    def close(self) -> None:
        """Release the pipe and the memory."""
        self.pipe.close()
        os.close(self.memory)


class _Helper:
    """An encoding process, with two lanes, so that it has its next chunk at hand when it is through with one.

    It is a fresh interpreter and not a fork, since the program may have threads or a framework loaded, which forks do
    not survive; and not started by multiprocessing, which would run the user's script a second time.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
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

    def has_started(self) -> bool:
        """Wait for the process to be ready; False if it ended before that."""
        try:
            self.lanes[0].pipe.send(self._job)
            self.lanes[0].pipe.recv()
        except (EOFError, OSError):
            return False
        return True

    def stop(self) -> None:
        """End the process; whoever waits for it gets an error."""
        self._process.kill()

    def close(self) -> None:
        """Release what is left of an ended process."""
        self._process.wait()
        for lane in self.lanes:
            lane.close()


def main(descriptors: list[tuple[int, int]]) -> None:
    """Run a helper process: answer chunks with what :func:`encode` returns or raises, until the pipes close."""
    lanes: dict[Any, int] = {Connection(pipe): memory for pipe, memory in descriptors}
    try:
        first = next(iter(lanes))
        job = first.recv()
        first.send("ready")
        while True:
            asking: list[Any] = wait(list(lanes))
            for pipe in asking:
                pipe.send(_answer(job, pipe.recv(), lanes[pipe]))
    except (EOFError, OSError):  # the parent is gone
        return


def _answer(job: Job, chunk: Chunk, memory: int) -> Any:
    """Encode a chunk, write its records to ``memory`` and return their sizes and the features' sum, or the error."""
    try:
        encoded = encode(job, chunk)
        position = 0
        for record in chain(encoded.features, encoded.labels):
            position += os.pwrite(memory, record, position)
    except Exception as error:
        return error
    return [len(record) for record in encoded.features], [len(record) for record in encoded.labels], encoded.total
