"""The contender's side of benchmarks/pairing.py: a process that runs one thing as often as it is told, and times it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def options() -> Any:
    """What the benchmark asked for."""
    return json.loads(sys.argv[1])


def serve(unit: Callable[[], object]) -> None:
    """Say that all is ready; then, for each number that comes, run ``unit`` so often and say how many seconds it took."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print
    print("ready", file=said, flush=True)
    for line in sys.stdin:
        count = int(line)
        began = time.perf_counter()
        for _ in range(count):
            unit()
        print(time.perf_counter() - began, file=said, flush=True)
