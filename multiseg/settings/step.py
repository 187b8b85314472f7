"""How a training step is computed: compiled or not, and in which precision; what a backend supports of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.errors import setting
from multiseg.network import FLOAT32, PRECISIONS

# the values of runs of versions without these settings
DEFAULTS: dict[str, Any] = {"compile": False, "precision": FLOAT32}


def step_problems(compiled: Any, precision: Any, backend: Backend, mixed_sizes: bool) -> list[str]:
    """Return what a backend does not support of a job's ``compile`` and ``precision``, in the words of an error's template."""
    problems = []
    if compiled is True and not backend.compiles:
        problems.append(
            f"{setting('compile', True)}: backend {backend.name} does not compile its training step; leave it out, or use a "
            f"backend that does: {_supporting(lambda other: other.compiles)}"
        )
    elif compiled is True and mixed_sizes:
        problems.append(
            f"{setting('compile', True)}: needs training images of one size, and those of the dataset differ; leave it out, or "
            f"specify {setting('crop')}"
        )
    if precision in PRECISIONS and precision not in backend.precisions:
        problems.append(
            f"{setting('precision', precision)}: backend {backend.name} trains in {' or '.join(backend.precisions)}; leave it "
            f"out, or use a backend that supports it: {_supporting(lambda other: precision in other.precisions)}"
        )
    return problems


def _supporting(condition: Callable[[Backend], bool]) -> str:
    return ", ".join(other.name for other in registry.installed() if condition(other)) or "none is installed"
