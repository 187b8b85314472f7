"""How many steps the program sends to the worker in one message: several where a step takes little time.

A message costs the program and the worker processor time, mostly for waking up. The training is the same with any number of steps
in a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

SECONDS = 0.1  # of the steps of one message, within which a stop is not noticed and no progress is reported
MOST = 64  # steps
MOST_BYTES = 1 << 22


class Pace:
    """The number of steps for the next message, from the time that the last ones took."""

    def __init__(self) -> None:
        self._steps = 1

    def steps(self, step: Mapping[str, Any]) -> int:
        """Return the number of steps of the next message, given the arguments of its first one."""
        size = sum(value.nbytes for value in step.values() if isinstance(value, np.ndarray))
        return max(1, min(self._steps, MOST_BYTES // max(size, 1)))

    def took(self, steps: int, seconds: float) -> None:
        """Note that so many steps took so long. Their number at most doubles, as the first ones of a training are slow."""
        fitting = int(SECONDS * steps / max(seconds, 1e-9))
        self._steps = max(1, min(fitting, 2 * self._steps, MOST))
