"""The named losses: of the differences between output and labels, each element's loss and its slope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def l1(d: Any) -> tuple[Any, Any]:
    return np.abs(d), np.sign(d)


def l2(d: Any) -> tuple[Any, Any]:
    return np.square(d), 2 * d


def smooth_l1(d: Any) -> tuple[Any, Any]:
    return np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5), np.clip(d, -1, 1)


def huber(d: Any, delta: float) -> tuple[Any, Any]:
    within = np.clip(d, -delta, delta)
    return within * (d - within / 2), within


LOSSES: dict[str, Callable[..., tuple[Any, Any]]] = {"l1": l1, "l2": l2, "smooth_l1": smooth_l1, "huber": huber}
