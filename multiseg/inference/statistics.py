"""Statistics of an array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from multiseg.layout import Floats

BINS = 20  # of a histogram, as DIGITS has


@dataclass(frozen=True)
class Statistics:
    """Statistics of an array's finite values; ``not_finite`` counts the others. ``std`` has the divisor n."""

    shape: tuple[int, ...]
    mean: float
    std: float
    minimum: float
    maximum: float
    histogram: tuple[int, ...]
    not_finite: int

    @classmethod
    def of(cls, values: Floats) -> Statistics:
        """Return the statistics of ``values``; the histogram has BINS bins of equal width from minimum to maximum."""
        finite = values[np.isfinite(values)].astype(np.float64)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        counts, _ = np.histogram(finite, BINS, (low, high) if high > low else (low - 0.5, low + 0.5))
        return cls(
            shape=tuple(values.shape),
            mean=float(finite.mean()) if finite.size else 0.0,
            std=float(finite.std()) if finite.size else 0.0,
            minimum=low,
            maximum=high,
            histogram=tuple(int(count) for count in counts),
            not_finite=int(values.size - finite.size),
        )
