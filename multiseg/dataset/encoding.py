"""Turn image pairs into Datum records, in this process and in helper processes."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
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


class Encoders:
    """Several encoders at work: this process and ``workers - 1`` helpers. Use as a context manager."""

    def __init__(self, job: Job, workers: int) -> None:
        self._workers = workers
        self._idle: queue.SimpleQueue[Callable[[Chunk], Encoded]] = queue.SimpleQueue()
        self._idle.put(lambda chunk: encode(job, chunk))
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="multiseg-encoder")
        self._helpers = [_Helper(job) for _ in range(workers - 1)]
        for helper in self._helpers:
            self._pool.submit(self._enlist, helper)

    def map(self, chunks: Iterable[Chunk]) -> Iterator[Encoded]:
        """Encode chunks; the results come in the chunks' order, whichever encoder finishes first."""
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
            self._idle.put(helper.encode)

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


class _Helper:
    """An encoding process.

    It is a fresh interpreter and not a fork, since the program may have threads or a framework loaded, which forks do
    not survive; and not started by multiprocessing, which would run the user's script a second time.
    """

    def __init__(self, job: Job) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main({theirs.fileno()})"],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self._job = job

    def has_started(self) -> bool:
        """Wait for the process to be ready; False if it ended before that."""
        try:
            self._connection.send(self._job)
            self._connection.recv()
        except (EOFError, OSError):
            return False
        return True

    def encode(self, chunk: Chunk) -> Encoded:
        """Have a chunk encoded. Raises what :func:`encode` raises."""
        try:
            self._connection.send(chunk)
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise DatasetError(
                f"an encoding process ended unexpectedly (exit status {self._process.wait()}); try fewer workers"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        encoded: Encoded = answer
        return encoded

    def stop(self) -> None:
        """End the process; whoever waits for it gets an error."""
        self._process.kill()

    def close(self) -> None:
        """Release what is left of an ended process."""
        self._process.wait()
        self._connection.close()


def main(descriptor: int) -> None:
    """Run a helper process: answer chunks with what :func:`encode` returns or raises, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which then ends this process
    connection: Any = Connection(descriptor)
    try:
        job = connection.recv()
        connection.send("ready")
        while True:
            chunk = connection.recv()
            try:
                answer: Any = encode(job, chunk)
            except Exception as error:
                answer = error
            connection.send(answer)
    except (EOFError, OSError):  # the parent is gone
        return
