"""Validate a network during training."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from multiseg.dataset.cropping import CentreCrop, Size
from multiseg.dataset.feed import batches
from multiseg.dataset.foreground import DARK, Foreground
from multiseg.dataset.readers import Readers
from multiseg.errors import DatasetError
from multiseg.inference.evaluation import Evaluation
from multiseg.layout import Floats, Layout
from multiseg.network import CLASSES, LabelKind
from multiseg.worker.client import Worker


def validate(
    worker: Worker, split: Any, layout: Layout, batch_size: int, foreground: Foreground | float = DARK,
    labels: LabelKind | None = None, ignore: Collection[int] = (), between: Callable[[], None] = lambda: None,
    crop: Size | None = None, seen: Callable[[Floats], None] = lambda outputs: None, readers: Readers | None = None,
) -> Evaluation:  # fmt: skip
    """Return the evaluation of the network in ``worker`` over a whole split: its loss and metrics.

    ``crop`` (height, width) evaluates the central part of each image, None whole images. ``between`` is called before each batch,
    and may raise to end the validation; ``seen`` receives the outputs (N, C, H, W) of each. ``readers`` as in
    :func:`multiseg.dataset.feed.batches`. Raises DatasetError if the split
    has no labels, or an image is smaller than the crop.
    """
    evaluation = Evaluation(foreground, labels, ignore)
    change = None if crop is None or not len(split) else CentreCrop(crop, split.name)
    with batches(split, batch_size, layout=layout, change=change, readers=readers) as feed:
        for batch in feed:
            between()
            if batch.labels is None:
                raise DatasetError(f"{split.name}: has no labels; validation needs them")
            output, terms = worker.call("evaluate", features=batch.features, labels=batch.labels)
            outputs = layout.output(output, contiguous=labels != CLASSES)
            seen(outputs)
            evaluation.add(outputs, layout.output(batch.labels), terms, split.name)
    return evaluation
