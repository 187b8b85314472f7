"""The environment of a run: versions, processor and threads, as recorded in job.json."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiseg._version import __version__


def of(framework: Mapping[str, Any], threads: int, processes: int = 1) -> dict[str, Any]:
    """Return versions, processor, threads, the number of processes if there are several, and the worker's ``framework`` info."""
    return {
        "multiseg": __version__,
        "framework": framework["version"],
        "worker_python": framework["python"],
        "executable": framework["executable"],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        **({"processes": processes} if processes > 1 else {}),
        **{key: framework[key] for key in ("device", "blas", "numpy") if key in framework},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
