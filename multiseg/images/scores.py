"""Scores of classes: which class has the highest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIXELS = 1 << 16  # that are compared at once: their highest scores stay in the cache
_FEW = 32  # classes; NumPy's argmax is faster for more of them that are adjacent in memory


def highest(scores: NDArray[Any]) -> NDArray[Any]:
    """Return the class of the highest score of every pixel, (H, W), the lowest of equal ones; not defined for NaN.

    ``scores`` are (C, H, W), in any order in memory. The classes are uint8 for up to 256 of them, else uint16 or uint32.
    """
    count, height, width = scores.shape
    kind = np.min_scalar_type(max(count - 1, 0))
    adjacent = count > 1 and scores.strides[0] == scores.itemsize
    if adjacent and count > _FEW:
        found: NDArray[Any] = scores.argmax(axis=0).astype(kind)
        return found
    classes = np.zeros((height, width), kind)
    rows = max(1, _PIXELS // max(width, 1))
    for start in range(0, height, rows):
        part, result = scores[:, start : start + rows], classes[start : start + rows]
        part = np.ascontiguousarray(part) if adjacent else part
        best = part[:1].max(axis=0)
        for number in range(1, count):  # NumPy's argmax over planes is not vectorised
            higher = (part[number] > best).view(np.uint8)
            np.maximum(result, np.multiply(higher, kind.type(number), dtype=kind), out=result)
            np.maximum(best, part[number], out=best)
    return classes
