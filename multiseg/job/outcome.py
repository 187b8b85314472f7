"""Train one job and return its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from multiseg.dataset import Dataset
from multiseg.errors import LONGEST_MESSAGE, MultisegError, TrainingStopped, shortened
from multiseg.job.job import Job
from multiseg.run.folder import RunFolder
from multiseg.training.signals import Stop

PATHS = ("dataset", "model", "weights")
Report = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """The result of a job: ``skipped`` was already finished, ``stopped`` can be resumed, ``failed`` has an ``error``."""

    name: str
    folder: Path
    status: Literal["finished", "skipped", "stopped", "failed"]
    error: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "error", shortened(self.error, LONGEST_MESSAGE)
        )  # that of another library has any length


def train_one(name: str, job: Job, folder: Path, stop: Stop | None = None, report: Report | None = None) -> Outcome:
    """Train one job in ``folder``, or resume it; errors of multiseg are returned in the outcome, not raised."""
    started = time.perf_counter()

    def outcome(status: Literal["finished", "skipped", "stopped", "failed"], error: object = "") -> Outcome:
        return Outcome(name, folder, status, str(error), time.perf_counter() - started)

    def listen(event: dict[str, Any]) -> None:
        if report:
            report(name, event)

    exists = folder.is_dir() and any(folder.iterdir())
    finished = exists and RunFolder(folder).finished
    try:
        job.train(folder, resume=exists, progress=listen, stop=stop)
    except TrainingStopped as error:
        return outcome("stopped", error)
    except (MultisegError, OSError) as error:
        return outcome("failed", error)
    return outcome("skipped" if finished else "finished")


def place_of(job: Job) -> str | Path:
    """Return the place of a job's dataset: a folder or a URL."""
    return job.dataset.path if isinstance(job.dataset, Dataset) else job.dataset
