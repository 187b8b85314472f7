"""Start the process of a run's backend early: its start takes a second, in which the program can do other work."""

from __future__ import annotations

from pathlib import Path

from multiseg import backend as registry
from multiseg.run.reading import read_job
from multiseg.worker import pool
from multiseg.worker.client import Worker


def begin(run: Path) -> Worker:
    """Start a process of the backend of a run folder, without waiting for it; Run.adopt takes it.

    This module imports little: what tests with a run takes 0.2 s to import. Raises RunError if the folder cannot be read.
    """
    settings = read_job(run)["settings"]
    return pool.start(registry.get(settings["backend"]), settings["threads"], wait=False)
