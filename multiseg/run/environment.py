"""The environment of a run: versions, processor and threads, as recorded in job.json."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from multiseg._version import __version__
from multiseg.worker.processor import processor


def of(framework: Mapping[str, Any], threads: int, processes: int = 1) -> dict[str, Any]:
    """Return versions, processor, threads, the number of processes if there are several, and the worker's ``framework`` info."""
    return {
        "multiseg": __version__,
        "framework": framework["version"],
        "worker_python": framework["python"],
        "executable": framework["executable"],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": processor().get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "threads": threads,
        **({"processes": processes} if processes > 1 else {}),
        **{key: framework[key] for key in ("device", "blas", "numpy") if key in framework},
    }
