"""What a run ran on: the evidence beside its numbers."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiseg._version import __version__


def of(found: Mapping[str, Any], threads: int, processes: int = 1) -> dict[str, Any]:
    """Versions, processor, threads, of several processes how many, and what the worker found about its framework."""
    return {
        "multiseg": __version__,
        "framework": found["version"],
        "worker_python": found["python"],
        "executable": found["executable"],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        **({"processes": processes} if processes > 1 else {}),
        **{key: found[key] for key in ("device", "blas", "numpy") if key in found},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
