"""Test a network on a database, batch by batch."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.dataset import open_split
from multiseg.dataset.class_indices import check_labels
from multiseg.dataset.cropping import CentreCrop
from multiseg.dataset.feed import batches
from multiseg.dataset.reading import Split
from multiseg.errors import DatasetError
from multiseg.inference.evaluation import Evaluation
from multiseg.inference.options import Options
from multiseg.inference.output import Output
from multiseg.inference.predictor import predict
from multiseg.inference.tested import TestedNetwork, pixel_labels
from multiseg.layout import Floats
from multiseg.network import LossTerms

IN_FLIGHT = 2  # batches submitted before waiting for the first output
MOST_BYTES = 1 << 26  # of the output of a batch, unless one image has more


def test_db(
    run: TestedNetwork,
    path: str | Path,
    options: Options,
    batch_size: int | None,
    each: Callable[[int, Output], None] | None,
) -> dict[str, Any]:
    """Return loss and metrics over a database; see Run.test_db."""
    split = open_split(path)
    most = _most_images(run, split)
    size = batch_size or min(run.settings["val_batch_size"], max(1, most))
    kind = run.labels.kind if run.labels else None
    evaluation = Evaluation(run.foreground, kind, run.ignored)
    run.worker()  # start it before the timing, so that images_per_second does not include it
    start = time.perf_counter()
    for tested in _stream(run, split, size, options, prefetch=2 if most else 0):
        indices, output, labels, terms = tested
        evaluation.add(output, labels, terms, split.name)
        if each is not None:
            change = _change(run, split, options)
            features, _ = split.read(indices) if change is None else change(*split.pairs(indices), indices)
            of_pixels = pixel_labels(run, output.shape[1:])
            for index, feature, one in zip(indices, features, output, strict=True):
                result = Output(one, feature, options.pixel_conversion, None, run.classifies, of_pixels, run.foreground)
                each(int(index), result)
                del one, result
        del tested, output  # before the next output is received: large images have large outputs
    seconds = time.perf_counter() - start
    return {
        "count": evaluation.count,
        **evaluation.result(),
        "seconds": seconds,
        "images_per_second": evaluation.count / seconds if evaluation.count else None,
        **evaluation.classes(run.labels.names if run.labels else None),
    }


def _most_images(run: TestedNetwork, split: Split) -> int:
    """Return the largest number of images whose output has at most MOST_BYTES; 0 if that of one has more."""
    size = split.shape or run.input_shape
    one = (run.classes or run.label_shape[0]) * math.prod(size[1:]) * np.dtype(np.float32).itemsize
    return MOST_BYTES // one


Tested = tuple[npt.NDArray[np.int64], Floats, npt.NDArray[Any] | None, LossTerms | None]


def _stream(run: TestedNetwork, split: Split, batch_size: int, options: Options, prefetch: int) -> Iterator[Tested]:
    """Yield positions, outputs, labels and terms of the loss of each batch; images of mixed sizes are tested one by one."""
    if split.shape is not None and split.shape[0] != run.input_shape[0]:
        raise DatasetError(
            f"{split.name}: has images of {split.shape[0]} channels, {run.model.name} takes {run.input_shape[0]}"
        )
    if _change(run, split, options) is not None:
        yield from _stream_batches(run, split, batch_size, options, prefetch)
        return
    one_by_one = run.mixed_sizes and not options.pad and options.tile is None
    if split.shape == run.input_shape or one_by_one:
        yield from _stream_batches(run, split, 1 if split.shape is None else batch_size, options, prefetch)
        return
    chunk = 1 if split.shape is None else max(1, batch_size * run.input_shape[1] // split.shape[1])
    for start in range(0, len(split), chunk):
        indices = np.arange(start, min(start + chunk, len(split)))
        features, labels = split.read(indices)
        yield indices, predict(run, features, options), labels, None


def _change(run: TestedNetwork, split: Split, options: Options) -> CentreCrop | None:
    """Return the central crop of a run that is validated on one; None for whole images, also where they are padded or tiled."""
    if run.val_crop is None or options.pad or options.tile is not None:
        return None
    return CentreCrop(run.val_crop, split.name)


def _stream_batches(
    run: TestedNetwork, split: Split, batch_size: int, options: Options, prefetch: int
) -> Iterator[Tested]:
    """Yield the results of batches of the training images' size; batches are read and submitted ahead."""
    worker, read_out = run.worker(), options.of_output(run.layout)
    contiguous = run.classes is None  # the scores of many classes are used without a copy
    in_flight: deque[tuple[int, Any, Floats | None]] = deque()  # number of the call, positions and labels

    def collect() -> Tested:
        number, indices, labels = in_flight.popleft()
        if labels is None:
            return indices, read_out.output(worker.result(number)[0], contiguous), None, None
        output, terms = worker.result(number)
        return indices, read_out.output(output, contiguous), run.layout.output(labels), terms

    try:
        change = _change(run, split, options)
        with batches(split, batch_size, layout=run.layout, prefetch=prefetch, change=change) as feed:
            for batch in feed:
                if run.classes is not None and batch.labels is not None:
                    labels = run.layout.output(batch.labels)
                    check_labels(split, batch.indices, labels, run.classes, run.ignored)
                method = "predict" if batch.labels is None else "evaluate"
                number = worker.submit(method, features=batch.features, labels=batch.labels)
                in_flight.append((number, batch.indices, batch.labels))
                del batch  # before its output is received: the images have been sent
                if len(in_flight) >= IN_FLIGHT:
                    yield collect()
            while in_flight:
                yield collect()
    finally:  # the caller may have stopped iterating
        worker.abandon(*(number for number, *_ in in_flight))
