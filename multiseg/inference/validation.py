"""Measuring a loaded network over a split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multiseg.dataset.feed import batches
from multiseg.errors import DatasetError
from multiseg.layout import Layout
from multiseg.settings.metrics import THRESHOLD, Metrics
from multiseg.worker.client import Worker


def validate(
    worker: Worker, split: Any, layout: Layout, batch_size: int, threshold: float = THRESHOLD,
    between: Callable[[], None] = lambda: None,
) -> dict[str, float | None]:  # fmt: skip
    """Loss (weighted by batch, None without images) and neutral metrics of a loaded network over a whole split.

    ``between`` is called before each batch, and may raise to end it.
    """
    metrics, total, count = Metrics(threshold), 0.0, 0
    with batches(split, batch_size, layout=layout) as feed:
        for batch in feed:
            between()
            if batch.labels is None:
                raise DatasetError(
                    f"{split.name}: has no labels beside it; without targets there is nothing to measure"
                )
            output, loss, _ = worker.call("predict", features=batch.features, labels=batch.labels)
            metrics.add(layout.output(output), layout.output(batch.labels))
            total, count = total + loss * len(batch.indices), count + len(batch.indices)
    if not count:
        return {"val_loss": None, **dict.fromkeys(metrics.result())}
    return {"val_loss": total / count, **metrics.result()}
