"""Start the processes of backends; all other modules start them through this one."""

from __future__ import annotations

from pathlib import Path

from multiseg.backend import Backend
from multiseg.worker.client import Worker


def start(backend: Backend, threads: int = 0, log: Path | None = None, wait: bool = True) -> Worker:
    """Start a process of the backend; close it, or use it as a context manager.

    ``threads`` is the number of threads of its libraries, 0 for their default; ``log`` receives what the process prints. Without
    ``wait`` the process loads the framework while the caller continues; its first call waits for that.
    Raises BackendUnavailable if the framework cannot be loaded, WorkerError if the process dies.
    """
    return Worker(backend, threads, log, wait)
