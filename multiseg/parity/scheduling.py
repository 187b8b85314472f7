"""Compare the sides of a check: one alone, whose weights the others are compared with, then the others two at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from multiseg.errors import BackendUnavailable, ModelError
from multiseg.parity.check import Check
from multiseg.parity.golden.plan import GoldenPlan
from multiseg.parity.plan import Plan
from multiseg.worker import pool
from multiseg.worker.client import Worker

AT_ONCE = 2
MOST_WEIGHTS = 1 << 24  # of a network whose sides run at once: each needs about ten float64 arrays of this size, 1.3 GB

Begin = Callable[[Worker | None], Check]


def compare_sides(plan: Plan, begin: Begin, parts: Path | None) -> Check:
    """Compare all sides of a plan and return the check with all rows.

    ``begin`` creates the check, with the worker of the first side unless the plan has a golden file. ``parts``: the folder for
    the smallest differing part of each side; None for no search. Raises ModelError and BackendUnavailable for a side that is
    not optional.
    """
    sides = _Sides(plan, parts)
    check = begin(None) if isinstance(plan, GoldenPlan) else None
    rest = list(range(len(plan.entries)))
    while rest and not (
        check is not None and check.kept and len(rest) > 1 and check.first.parameter_count <= MOST_WEIGHTS
    ):
        check = sides.compare(rest.pop(0), check or begin)
    assert check is not None
    if rest:
        sides.compare_at_once(rest, check)
    return check


class _Sides:
    """Compares sides, each in a process of its backend."""

    def __init__(self, plan: Plan, parts: Path | None) -> None:
        self.plan, self.parts = plan, parts
        self._workers: list[Worker] = []
        self._stopped = threading.Event()

    def compare(self, number: int, check: Check | Begin) -> Check:
        """Compare one side, and return the check; it may be created with the side's worker."""
        entry = self.plan.entries[number]
        try:
            with pool.start(entry.backend, entry.settings.threads) as worker:
                self._workers.append(worker)
                if self._stopped.is_set():
                    raise BackendUnavailable("the check was stopped")
                if not isinstance(check, Check):
                    check = check(worker)
                check.say(entry.name)
                check.compare(number, worker)
                if self.parts is not None:
                    check.reduce(number, worker, self.parts)
        except (ModelError, BackendUnavailable) as error:
            if not isinstance(check, Check) or entry.backend.name not in self.plan.optional:
                raise
            check.leave_out(entry.name, str(error))
        return check

    def compare_at_once(self, numbers: list[int], check: Check) -> None:
        """Compare several sides at the same time, and add their results to the check in order."""
        with ThreadPoolExecutor(AT_ONCE) as executor:
            futures = [executor.submit(self.compare, number, check.beside()) for number in numbers]
            try:
                for future in futures:
                    check.parity.add(future.result().parity)
            except BaseException:  # Ctrl-C too: the others end at their next call of a worker
                self._stopped.set()
                executor.shutdown(wait=False, cancel_futures=True)
                for worker in self._workers:
                    worker.close()
                raise
