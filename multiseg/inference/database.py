"""Test a network on a database, batch by batch."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.dataset import open_split
from multiseg.dataset.class_indices import check_labels
from multiseg.dataset.feed import Batch, batches
from multiseg.dataset.reading import Split
from multiseg.errors import DatasetError
from multiseg.inference.evaluation import Evaluation
from multiseg.inference.options import Options
from multiseg.inference.output import Output
from multiseg.inference.predictor import predict
from multiseg.inference.tested import TestedNetwork
from multiseg.layout import Floats
from multiseg.network import LossTerms

IN_FLIGHT = 2  # batches submitted before waiting for the first output


def test_db(
    run: TestedNetwork,
    path: str | Path,
    options: Options,
    batch_size: int | None,
    each: Callable[[int, Output], None] | None,
) -> dict[str, Any]:
    """Return loss and metrics over a database; see Run.test_db."""
    split = open_split(path)
    size = batch_size or run.settings["val_batch_size"]
    kind = run.labels.kind if run.labels else None
    evaluation = Evaluation(run.foreground, kind, run.ignored)
    run.worker()  # start it before the timing, so that images_per_second does not include it
    start = time.perf_counter()
    for indices, output, labels, terms in _stream(run, split, size, options):
        evaluation.add(output, labels, terms, split.name)
        if each is not None:
            features, _ = split.read(indices)
            for index, feature, one in zip(indices, features, output, strict=True):
                each(int(index), Output(one, feature, options.pixel_conversion, classifies=run.classifies))
    seconds = time.perf_counter() - start
    return {
        "count": evaluation.count,
        **evaluation.result(),
        "seconds": seconds,
        "images_per_second": evaluation.count / seconds if evaluation.count else None,
        **evaluation.classes(run.labels.names if run.labels else None),
    }


Tested = tuple[npt.NDArray[np.int64], Floats, npt.NDArray[Any] | None, LossTerms | None]


def _stream(run: TestedNetwork, split: Split, batch_size: int, options: Options) -> Iterator[Tested]:
    """Yield positions, outputs, labels and terms of the loss of each batch; images of mixed sizes are tested one by one."""
    if split.shape is not None and split.shape[0] != run.input_shape[0]:
        raise DatasetError(
            f"{split.name}: has images of {split.shape[0]} channels, {run.model.name} takes {run.input_shape[0]}"
        )
    one_by_one = run.mixed_sizes and not options.pad and options.tile is None
    if split.shape == run.input_shape or one_by_one:
        yield from _stream_batches(run, split, 1 if split.shape is None else batch_size, options)
        return
    chunk = 1 if split.shape is None else max(1, batch_size * run.input_shape[1] // split.shape[1])
    for start in range(0, len(split), chunk):
        indices = np.arange(start, min(start + chunk, len(split)))
        features, labels = split.read(indices)
        yield indices, predict(run, features, options), labels, None


def _stream_batches(run: TestedNetwork, split: Split, batch_size: int, options: Options) -> Iterator[Tested]:
    """Yield the results of batches of the training images' size; batches are read and submitted ahead."""
    worker, read_out = run.worker(), options.of_output(run.layout)
    in_flight: deque[tuple[int, Batch]] = deque()

    def collect() -> Tested:
        number, batch = in_flight.popleft()
        if batch.labels is None:
            return batch.indices, read_out.output(worker.result(number)[0]), None, None
        output, terms = worker.result(number)
        return batch.indices, read_out.output(output), run.layout.output(batch.labels), terms

    try:
        with batches(split, batch_size, layout=run.layout) as feed:
            for batch in feed:
                if run.classes is not None and batch.labels is not None:
                    labels = run.layout.output(batch.labels)
                    check_labels(split, batch.indices, labels, run.classes, run.ignored)
                method = "predict" if batch.labels is None else "evaluate"
                number = worker.submit(method, features=batch.features, labels=batch.labels)
                in_flight.append((number, batch))
                if len(in_flight) >= IN_FLIGHT:
                    yield collect()
            while in_flight:
                yield collect()
    finally:  # the caller may have stopped iterating
        worker.abandon(*(number for number, _ in in_flight))
