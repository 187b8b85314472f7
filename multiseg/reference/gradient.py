"""Derive gradients from a backend that only trains: one update at a huge rate is the gradient, up to the update's rounding."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from multiseg.reference.bounded import Array, U

# a power of two, so that the product is exact, and so large that w - rate * g rounds to almost exactly -rate * g
RATE = 2.0**40
SOLVER = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}  # its update is the gradient times the rate


def from_step(before: Array, after: Array) -> npt.NDArray[np.float64]:
    """Return the gradient whose update changed a parameter from ``before`` to ``after``."""
    gradient: npt.NDArray[np.float64] = (before.astype(np.float64) - after) / RATE
    return gradient


def rounding(before: Array, gradient: Array) -> npt.NDArray[np.float64]:
    """Return a bound of the error of :func:`from_step` from rounding of the update and of the weights after it."""
    bound: npt.NDArray[np.float64] = 2 * U * (np.abs(before) / RATE + np.abs(gradient))
    return bound
