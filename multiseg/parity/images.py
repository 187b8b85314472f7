"""Compare the layers for many images of a dataset, of which one batch is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from multiseg import reference
from multiseg.errors import SettingsError, setting
from multiseg.parity.comparing import Weights, fitting, layers
from multiseg.parity.detail import WorstImage
from multiseg.parity.plan import ParityBatch
from multiseg.parity.rows import ParityRow
from multiseg.parity.side import ParitySide

ALL = "all"


def count_of(images: int | str | None, available: int) -> int:
    """Return the number of images that is meant: 0 for None, ``available`` for "all". Raises SettingsError for other values."""
    if images is None:
        return 0
    if images == ALL:
        return available
    if isinstance(images, bool) or not isinstance(images, int) or images < 1:
        raise SettingsError(f"{setting('images', images)}: must be a number of images of at least 1, or {ALL!r}")
    return min(images, available)


def extended(
    side: ParitySide, rows: Sequence[ParityRow], first: ParityBatch, batches: Iterable[ParityBatch], weights: Weights,
    mean: object, say: Callable[[int], None],
) -> tuple[list[ParityRow], WorstImage | None]:  # fmt: skip
    """Extend the ``rows`` of the layers from the ``first`` batch to further ones; return all rows, and the worst image.

    The side must have its weights. ``say`` is called with the number of images so far.
    """
    by_name = {row.name: _of_images(row, first) for row in rows if row.stage == "forward"}
    worst = _worst(by_name.values(), first, None)
    done = len(first.indices)
    for batch in batches:
        output, _, outputs = side.predict(batch.features, None)
        outputs.setdefault(side.reference.outputs[0], output)
        trace = reference.forward(side.reference, weights, batch.images, fitting(side.reference, outputs))
        explained = all(row.ok for row in by_name.values())
        batch_rows = [_of_images(row, batch) for row in layers(side, trace, outputs, weights, mean, explained)]
        by_name.update({row.name: by_name[row.name].joined(row) if row.name in by_name else row for row in batch_rows})
        worst = _worst(batch_rows, batch, worst)
        done += len(batch.indices)
        say(done)
    return [by_name.get(row.name, row) if row.stage == "forward" else row for row in rows], worst


def _of_images(row: ParityRow, batch: ParityBatch) -> ParityRow:
    return replace(row, images=len(batch.indices), image=batch.indices[row.worst[0] if row.worst else 0])


def _worst(rows: Iterable[ParityRow], batch: ParityBatch, known: WorstImage | None) -> WorstImage | None:
    """Return the worst image of a batch if it is worse than the ``known`` one, else that."""
    row = max(rows, key=lambda row: row.share, default=None)
    if row is None or row.worst is None or row.image is None or (known is not None and row.share <= known.share):
        return known
    return WorstImage(row.image, row.name, row.share, batch.features[row.worst[0]].copy())
