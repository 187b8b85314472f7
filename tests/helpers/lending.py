"""Workers that tests lend each other: starting a framework takes seconds, loading another network into it does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from multiseg import backend as registry
from multiseg.backend import Backend
from multiseg.run.run import Run
from multiseg.worker.client import Worker

_spare: dict[Any, list[Lent]] = {}
_lasting: set[frozenset[tuple[str, str]]] = set()  # environments that modules begin in


class Lent(Worker):
    """Closed, it waits for the next test; but not where it has died, or owes an answer, or never began."""

    key: Any = None

    def close(self) -> None:
        waiting = _spare.setdefault(self.key, [])
        if getattr(self, "_probed", None) is None or not self.idle:
            super().close()
        elif self not in waiting:
            waiting.append(self)


def start(backend: Backend, threads: int = 0, log: Path | None = None, wait: bool = True) -> Worker:
    """A process of the backend as Worker starts one, but that it may have any network in it, and prints elsewhere."""
    around = _environment()
    if around not in _lasting:  # a test's own, in which the process is to be started
        return Worker(backend, threads, log, wait)
    if log is not None:
        log.touch()
    key = backend.name, threads, around
    if _spare.get(key):
        return _spare[key].pop()
    worker = Lent(backend, threads=threads, wait=wait)
    worker.key = key
    return worker


def lend(backend: str, threads: int = 1) -> Worker:
    """A process of the backend that nobody else has now. Close it."""
    return start(registry.get(backend), threads)


def end() -> None:
    """End those that nobody has now."""
    for waiting in _spare.values():
        while waiting:
            Worker.close(waiting.pop())


@contextmanager
def everywhere() -> Iterator[None]:
    """The program itself uses such workers."""
    _lasting.add(_environment())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multiseg.worker.pool.start", start)
        yield


def _environment() -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in os.environ.items() if not name.startswith("PYTEST_"))


def weights_of(run: Run) -> dict[str, Any]:
    """The weights of a run's snapshot."""
    with run:
        weights: dict[str, Any] = run.worker().call("get_weights")
    return weights
