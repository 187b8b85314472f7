"""Details of one comparison: how its differences are distributed, and the tensors around the worst element."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from multiseg.reference.bounded import TINY, Array, Bounded

# limits between the bins of a histogram of shares of the tolerance; the last bin but two is the last one within it
SHARES = (1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2, 10**-1.5, 1e-1, 10**-0.5, 1.0, 10**0.5, 10.0)
CROP = 64  # maximum height and width of the part of a tensor that is kept


@dataclass(frozen=True, eq=False)
class Planes:
    """The height and width, or the whole of a matrix or vector, around the worst element, in the reference and in the framework.

    ``expected`` and ``measured`` (H, W) begin at row and column ``corner`` of a plane of ``shape``; ``worst`` is the element in
    them.
    """

    expected: Array
    measured: Array
    corner: tuple[int, int]
    shape: tuple[int, int]
    worst: tuple[int, int]

    @classmethod
    def of(cls, expected: Array, measured: Array, place: tuple[int, ...]) -> Planes:
        """Return the plane of two arrays of one shape in which the element ``place`` is, at most CROP x CROP of it."""
        leading = place[:-2]
        planes = [np.atleast_2d(array[leading]) for array in (expected, measured)]
        row, column = (0, 0, *place)[-2:]
        height, width = planes[0].shape
        top, left = (max(0, min(at - CROP // 2, size - CROP)) for at, size in ((row, height), (column, width)))
        crops = [plane[top : top + CROP, left : left + CROP].astype(np.float32) for plane in planes]
        return cls(crops[0], crops[1], (top, left), (height, width), (row - top, column - left))


@dataclass(frozen=True)
class WorstImage:
    """The image for which a side is nearest to its tolerance or farthest beyond it.

    ``index`` in the training data; the ``layer`` with the largest ``share`` of its tolerance; the image (C, H, W) as stored.
    """

    index: int
    layer: str
    share: float
    pixels: Array = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the image as plain values."""
        return {"index": self.index, "layer": self.layer, "share": self.share}


@dataclass(frozen=True, eq=False)
class Detail:
    """The ``median`` and the 99th ``percentile`` of the differences, and the number of elements in each bin of SHARES."""

    median: float
    percentile: float
    histogram: tuple[int, ...]

    @classmethod
    def of(cls, expected: Bounded, measured: Array) -> Detail:
        """Return the details of the elements that are finite and have a finite tolerance."""
        difference = np.abs(measured.astype(np.float64) - expected.value).ravel()
        shares = difference / (np.broadcast_to(expected.bound, measured.shape).ravel() + TINY)
        comparable = np.isfinite(shares)
        if not comparable.all():
            difference, shares = difference[comparable], shares[comparable]
        if not difference.size:
            return cls(0.0, 0.0, (0,) * (len(SHARES) + 1))
        counts = np.bincount(np.searchsorted(SHARES, shares), minlength=len(SHARES) + 1)
        median, percentile = np.quantile(difference, (0.5, 0.99))
        return cls(float(median), float(percentile), tuple(int(count) for count in counts))


def not_finite(expected: Bounded, measured: Array, comparable: Array) -> tuple[int, tuple[int, ...], str]:
    """Return number, first place and description of the elements that are not finite where ``comparable`` (flat) holds."""
    flat = measured.ravel()
    places = np.flatnonzero(~np.isfinite(flat) & comparable)
    first = tuple(int(at) for at in np.unravel_index(int(places[0]), measured.shape))
    nans = int(np.isnan(flat[places]).sum())
    parts = [f"{name} in {count:,}" for name, count in (("NaN", nans), ("infinite", len(places) - nans)) if count]
    where = f"first at {position(first)}, where the reference is {float(expected.value.ravel()[places[0]]):.4g}"
    return len(places), first, f"is not finite: {' and '.join(parts)} of {measured.size:,} elements, {where}"


def position(place: tuple[int, ...]) -> str:
    """Return the index of an element as text, as in "[0, 3, 12, 7]"."""
    return f"[{', '.join(map(str, place))}]"
