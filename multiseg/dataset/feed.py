"""Batches for training: one epoch order for all backends, converted to the backend's layout, prefetched."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from multiseg.dataset.readers import Change, Indices, Pairs, Readers, read_pairs
from multiseg.dataset.reading import Split
from multiseg.errors import SettingsError
from multiseg.layout import Floats, Layout


@dataclass(frozen=True)
class Batch:
    """Features and labels as float32 in the network's layout, and the indices of their pairs in the split.

    ``labels`` is None for a split without labels.
    """

    features: Floats
    labels: Floats | None
    indices: Indices


def epoch_order(count: int, seed: int, epoch: int) -> Indices:
    """Return the order of ``count`` pairs in an epoch: an int64 permutation.

    It is the stable argsort of the raw output of PCG64, seeded with SeedSequence((seed, epoch)). NumPy guarantees that raw
    streams never change (NEP 19), unlike ``permutation``, so the order is independent of NumPy's version and the backend.
    """
    if count < 0 or seed < 0 or epoch < 0:
        raise SettingsError(f"count {count}, seed {seed} and epoch {epoch} must be 0 or more")
    return np.argsort(np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(count), kind="stable")


class Batches(Iterator[Batch]):
    """Iterate over the batches of one pass over a split; see :func:`batches`. Closing or deleting it ends its thread."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        order: Indices,
        layout: Layout,
        prefetch: int,
        start: int,
        change: Change | None,
        readers: Readers | None,
    ) -> None:
        self._remaining = len(range(start * batch_size, len(order), batch_size))
        self._source = _read(split, batch_size, order, layout, start, change, readers)
        self._ready: queue.Queue[Batch | BaseException] | None = None
        self._stop = threading.Event()
        if prefetch and self._remaining:
            self._ready = queue.Queue(prefetch)
            # the thread must not reference this object, or deleting the object would never end the thread
            threading.Thread(
                target=_read_ahead, args=(self._source, self._ready, self._stop), name="multiseg-feed", daemon=True
            ).start()

    def __len__(self) -> int:
        """Return the number of remaining batches."""
        return self._remaining

    def __next__(self) -> Batch:
        if self._stop.is_set() or not self._remaining:
            raise StopIteration
        item = next(self._source) if self._ready is None else self._ready.get()
        if isinstance(item, BaseException):
            self.close()
            raise item
        self._remaining -= 1
        if not self._remaining and self._ready is None:
            self._source.close()
        return item

    def close(self) -> None:
        """Stop prefetching. Closing twice is harmless."""
        self._stop.set()
        if self._ready is None:
            self._source.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_stop"):
            self.close()


def batches(
    split: Split,
    batch_size: int,
    order: Indices | None = None,
    layout: Layout | None = None,
    prefetch: int = 2,
    start: int = 0,
    change: Change | None = None,
    readers: Readers | None = None,
) -> Batches:
    """Iterate over a split in batches of float32 arrays in ``layout`` (None: NCHW, RGB, no mean); the last may be smaller.

    ``order`` lists the positions to read (None: in stored order). A thread prepares up to ``prefetch`` batches in advance;
    0 uses no thread. ``start`` skips that many batches. ``change`` is applied to the features and labels of a batch,
    as stored, and their positions, before the conversion to ``layout``. ``readers`` read and change them; None: this process,
    which keeps no decoded images. Raises SettingsError for a number out of range; iterating raises DatasetError for records
    that cannot be read.
    """
    for name, value, minimum in (("batch_size", batch_size, 1), ("prefetch", prefetch, 0), ("start", start, 0)):
        if value < minimum:
            raise SettingsError(f"{name} {value} must be {minimum} or more")
    positions = np.arange(len(split)) if order is None else np.asarray(order, dtype=np.int64)
    return Batches(split, batch_size, positions, layout or Layout(), prefetch, start, change, readers)


def _read(
    split: Split, batch_size: int, order: Indices, layout: Layout, start: int, change: Change | None, readers: Readers | None
) -> Generator[Batch, None, None]:  # fmt: skip
    parts = [order[first : first + batch_size] for first in range(start * batch_size, len(order), batch_size)]
    with closing(_pairs(split, parts, change) if readers is None else readers.read(split, parts, change)) as pairs:
        for indices, (features, labels) in zip(parts, pairs, strict=True):
            yield Batch(layout.features(features), None if labels is None else layout.labels(labels), indices)


def _pairs(split: Split, parts: list[Indices], change: Change | None) -> Generator[Pairs, None, None]:
    for indices in parts:
        yield read_pairs(split, indices, change)


def _read_ahead(
    source: Generator[Batch, None, None], ready: queue.Queue[Batch | BaseException], stop: threading.Event
) -> None:
    def put(item: Batch | BaseException) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    try:
        with closing(source):
            for batch in source:
                put(batch)
                if stop.is_set():
                    return
    except BaseException as error:
        put(error)
