"""The contender's side of benchmarks/pairing.py: a process that runs one function repeatedly, as requested, and measures it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np


def options() -> Any:
    """What the benchmark asked for."""
    return json.loads(sys.argv[1])


def batches(given: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features and labels of the file ``images``, ``batch_size`` at a time."""
    with np.load(given["images"]) as held:
        features, labels = held["features"], held["labels"]
    starts = range(0, len(features), given["batch_size"])
    return [tuple(np.array(each[at : at + given["batch_size"]]) for each in (features, labels)) for at in starts]


def said() -> TextIO:
    """Where answers go; what frameworks print goes with the errors from now on."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}  # the latter is of all threads of this process


def serve(unit: Callable[[], object], clock: str = "wall", **units: Callable[[], object]) -> None:
    """Say that all is ready; then, for each number that comes, run ``unit`` (or the one that is named) so often and time it.

    Several are run after one that is not timed: after other processes' turns, caches do not hold this one's arrays, and the
    first step may take three times as long as those of a training.
    """

    def run(count: int, name: str) -> None:
        one = units.get(name, unit)
        for _ in range(count):
            one()

    serve_turns(run, clock, lambda count, name: run(1 if count > 1 else 0, name))


def serve_turns(
    run: Callable[[int, str], object], clock: str = "wall", before: Callable[[int, str], object] = lambda *_: None
) -> None:
    """The same where many in a row are one call; ``before`` is called before the time is taken."""
    answers = said()
    print("ready", file=answers)
    for line in sys.stdin:
        count, _, name = line.strip().partition(" ")
        before(int(count), name)
        began = CLOCKS[clock]()
        run(int(count), name)
        print(CLOCKS[clock]() - began, file=answers)
