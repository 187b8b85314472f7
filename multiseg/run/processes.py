"""A bound on the backend processes of several runs: a further run takes over the process of another one."""

from __future__ import annotations

from typing import Protocol

from multiseg.backend import Backend
from multiseg.worker import pool
from multiseg.worker.client import Worker


class Holder(Protocol):
    """What a run is to its processes."""

    def give_up(self) -> Worker | None:
        """Return the process that it holds and forget it; None if it holds none."""


class Processes:
    """At most ``most`` processes for any number of holders.

    When a further one is needed, the latest started process of the same backend and number of threads is taken over, and of
    another backend is ended. Of holders that are used in turns, over and over, all but the last ones thus keep their processes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._held: list[tuple[Holder, Worker, tuple[str, int]]] = []  # in the order in which they were obtained

    def obtain(self, holder: Holder, backend: Backend, threads: int) -> Worker:
        """Return a process for a holder that has none: a new one, or that of another holder. Raises as pool.start does.

        A new process may not have loaded its framework yet.
        """
        kind = backend.name, threads
        self._held = [held for held in self._held if held[0] is not holder and not held[1].closed]
        worker = None
        if len(self._held) >= self.most:
            alike = [held for held in self._held if held[2] == kind]
            last = (alike or self._held)[-1]
            self._held.remove(last)
            worker = last[0].give_up()
            if worker and not (alike and worker.idle):
                worker.close()
                worker = None
        worker = worker or pool.start(backend, threads, wait=False)
        self._held.append((holder, worker, kind))
        return worker
