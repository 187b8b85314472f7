"""Workers that tests lend each other: starting a framework takes seconds, loading another network into it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from multiseg import backend as registry
from multiseg.run import Run
from multiseg.worker.client import Worker

_spare: dict[tuple[str, int], list[Lent]] = {}


class Lent(Worker):
    """Closed, it waits for the next test; but not where it has died, or owes an answer, or never began."""

    threads = 0

    def close(self) -> None:
        waiting = _spare.setdefault((self.backend.name, self.threads), [])
        if not hasattr(self, "found") or self.closed or self._pending or self._process.poll() is not None:
            super().close()
        elif self not in waiting:
            waiting.append(self)


def lend(backend: str, threads: int = 1) -> Worker:
    """A process of the backend that nobody else has now; it may have any network in it. Close it."""
    waiting = _spare.get((backend, threads))
    if waiting:
        return waiting.pop()
    worker = Lent(registry.get(backend), threads=threads)
    worker.threads = threads
    return worker


def end() -> None:
    """End those that nobody has now."""
    for waiting in _spare.values():
        while waiting:
            Worker.close(waiting.pop())


def opened(run: Run | Path) -> Run:
    """A run, or that of a folder, which is tested in such a process, as in one that Run.worker starts. Close it."""
    run = run if isinstance(run, Run) else Run.open(run)
    assert run.snapshot is not None
    run.close()
    worker = lend(run.backend, run.settings["threads"])
    worker.call("load", spec=run.spec().to_json())
    worker.call("restore", folder=str(run.snapshot.path.resolve()))
    run._worker = worker
    return run


def weights_of(run: Run) -> dict[str, Any]:
    """The weights of a run's snapshot."""
    with opened(run):
        found: dict[str, Any] = run.worker().call("get_weights")
    return found
