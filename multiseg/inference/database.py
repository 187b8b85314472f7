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
from multiseg.dataset.dataset import FLOAT
from multiseg.dataset.feed import batches
from multiseg.dataset.reading import Split
from multiseg.errors import DatasetError
from multiseg.inference.evaluation import Evaluation
from multiseg.inference.options import Options
from multiseg.inference.output import Output
from multiseg.inference.predictor import predict
from multiseg.inference.tested import TestedNetwork, pixel_labels
from multiseg.inference.tested_labels import TestedLabels
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
    _check_values(run, split)
    tested = TestedLabels.of(run, split)
    most = _most_images(run, split)
    size = batch_size or min(run.settings["val_batch_size"], max(1, most))
    kind = run.labels.kind if run.labels else None
    evaluation = Evaluation(run.foreground, kind, tested.ignored)
    run.worker()  # start it before the timing, so that images_per_second does not include it
    start = time.perf_counter()
    for result in _stream(run, split, tested, size, options, prefetch=2 if most else 0):
        indices, output, labels, terms = result
        evaluation.add(output, labels, terms, split.name)
        if each is not None:
            change = _change(run, split, options)
            features, _ = split.read(indices) if change is None else change(*split.pairs(indices), indices)
            of_pixels = pixel_labels(run, output.shape[1:])
            for index, feature, one in zip(indices, features, output, strict=True):
                image = Output(one, feature, options.pixel_conversion, None, run.classifies, of_pixels, run.foreground)
                each(int(index), image)
                del one, image
        del result, output  # before the next output is received: large images have large outputs
    seconds = time.perf_counter() - start
    return {
        "count": evaluation.count,
        **evaluation.result(),
        "seconds": seconds,
        "images_per_second": evaluation.count / seconds if evaluation.count else None,
        **evaluation.classes(run.labels.names if run.labels else None),
    }


def _check_values(run: TestedNetwork, split: Split) -> None:
    """Raise DatasetError if a database has values of more than 8 bits and the training images had not, or the reverse."""
    deep = bool(len(split)) and split.feature(0).dtype != np.uint8
    if len(split) and deep != (run.values == FLOAT):
        bits = ("more than 8 bits", "8 bits")
        raise DatasetError(
            f"{split.name}: has values of {bits[not deep]}, {run.model.name} was trained on values of {bits[deep]}; "
            "create a dataset of images with the scale of those that it was trained on"
        )


def _most_images(run: TestedNetwork, split: Split) -> int:
    """Return the largest number of images whose output has at most MOST_BYTES; 0 if that of one has more."""
    size = split.shape or run.input_shape
    one = (run.classes or run.label_shape[0]) * math.prod(size[1:]) * np.dtype(np.float32).itemsize
    return MOST_BYTES // one


Tested = tuple[npt.NDArray[np.int64], Floats, npt.NDArray[Any] | None, LossTerms | None]


def _stream(
    run: TestedNetwork, split: Split, tested: TestedLabels, batch_size: int, options: Options, prefetch: int
) -> Iterator[Tested]:
    """Yield positions, outputs, labels and terms of the loss of each batch; images of mixed sizes are tested one by one."""
    if split.shape is not None and split.shape[0] != run.input_shape[0]:
        raise DatasetError(
            f"{split.name}: has images of {split.shape[0]} channels, {run.model.name} takes {run.input_shape[0]}"
        )
    if _change(run, split, options) is not None:
        yield from _stream_batches(run, split, tested, batch_size, options, prefetch)
        return
    one_by_one = run.mixed_sizes and not options.pad and options.tile is None
    if split.shape == run.input_shape or one_by_one:
        yield from _stream_batches(run, split, tested, 1 if split.shape is None else batch_size, options, prefetch)
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
    run: TestedNetwork, split: Split, tested: TestedLabels, batch_size: int, options: Options, prefetch: int
) -> Iterator[Tested]:
    """Yield the results of batches of the training images' size; batches are read and submitted ahead."""
    worker, read_out = run.worker(), options.of_output(run.layout)
    contiguous = run.classes is None  # the scores of many classes are used without a copy
    in_flight: deque[tuple[int, Any, Floats | None]] = deque()  # number of the call, positions and labels

    def collect() -> Tested:
        number, indices, labels = in_flight.popleft()
        output, *rest = worker.result(number)
        terms = rest[0] if labels is not None and tested.have_loss else None
        return (
            indices,
            read_out.output(output, contiguous),
            None if labels is None else run.layout.output(labels),
            terms,
        )

    try:
        change = _change(run, split, options)
        with batches(split, batch_size, layout=tested.layout, prefetch=prefetch, change=change) as feed:
            for batch in feed:
                if run.classes is not None and batch.labels is not None:
                    labels = run.layout.output(batch.labels)
                    check_labels(split, batch.indices, labels, run.classes, tested.ignored)
                compared = batch.labels if tested.have_loss else None
                method = "predict" if compared is None else "evaluate"
                number = worker.submit(method, features=batch.features, labels=compared)
                in_flight.append((number, batch.indices, batch.labels))
                del batch  # before its output is received: the images have been sent
                if len(in_flight) >= IN_FLIGHT:
                    yield collect()
            while in_flight:
                yield collect()
    finally:  # the caller may have stopped iterating
        worker.abandon(*(number for number, *_ in in_flight))
