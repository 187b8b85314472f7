"""Run contenders in separate processes, alternating, so that other load on the machine affects all alike."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "contenders"
Times = dict[str, list[float]]
SECONDS_TO_END = 10


class Contender:
    """A script of benchmarks/contenders in a process; see its serving.py. Raises RuntimeError if it exits."""

    def __init__(self, script: str, environment: Mapping[str, str] | None = None, **options: Any) -> None:
        self.script = script
        self._counts: dict[str, int] = {}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe that nobody reads fills up; closed in close
        self._process = subprocess.Popen(
            [sys.executable, FOLDER / f"{script}.py", json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **(environment or {}), "TF_CPP_MIN_LOG_LEVEL": "2", "GLOG_minloglevel": "2"},
        )
        self._answer()

    def run(self, count: int, unit: str = "") -> float:
        """Return the seconds for one ``unit``, with ``count`` in a row."""
        assert self._process.stdin is not None
        print(count, unit, file=self._process.stdin, flush=True)
        return float(self._answer()) / count

    def turn(self, seconds: float, unit: str = "") -> float:
        """Return the same, for as many in a row as take about this many seconds; the first turn determines the number."""
        if unit not in self._counts:
            # the first steps also allocate and initialise
            usual = min(self.run(1, unit) for _ in range(4))
            self._counts[unit] = max(1, round(seconds / usual))
        return self.run(self._counts[unit], unit)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise RuntimeError(f"{self.script} ended: {self._errors.read().decode(errors='replace')[-2000:]}")
        return line.strip()

    def close(self) -> None:
        """End the process, which removes its files; kill it if it takes too long."""
        try:
            self._process.communicate(timeout=SECONDS_TO_END)  # closes its input
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._errors.close()


def by_turns(turns: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1) -> Times:
    """Return the result of each turn (seconds per unit) in each round, without the first ``warm`` rounds."""
    times: Times = {name: [] for name in turns}
    for number in range(warm + rounds):
        for name, turn in turns.items():
            seconds = turn()
            if number >= warm:
                times[name].append(seconds)
    return times


def medians(times: Times) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in times.items()}
