"""The gradient of a backend that is asked for none: one update at a huge rate is the gradient, to the update's own rounding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from multiseg.reference.bounded import Array, U

# a power of two, so that multiplying is exact, and so large that of w - rate * g nothing is left but rate * g
RATE = 2.0**40
SOLVER = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}  # whose update is the gradient times the rate


def told(before: Array, after: Array) -> npt.NDArray[np.float64]:
    """The gradient that took a parameter from ``before`` to ``after``."""
    found: npt.NDArray[np.float64] = (before.astype(np.float64) - after) / RATE
    return found


def rounding(before: Array, gradient: Array) -> npt.NDArray[np.float64]:
    """What :func:`told` may be off by, as the update and the weights after it are rounded."""
    found: npt.NDArray[np.float64] = 2 * U * (np.abs(before) / RATE + np.abs(gradient))
    return found
