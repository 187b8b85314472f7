"""Runs side by side: their figures, their images, and one page that shows both.

The names below are imported when they are first used: importing this package loads neither NumPy nor Pillow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiseg.report.comparison import Comparison, compare

__all__ = ["Comparison", "compare"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'multiseg.report' has no attribute {name!r}")
    value = getattr(importlib.import_module("multiseg.report.comparison"), name)
    globals()[name] = value
    return value
