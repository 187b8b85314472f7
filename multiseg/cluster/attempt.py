"""Run a job in a Dask worker: the task that trains, and the functions that the program calls in the worker meanwhile.

The task sends Dask events on the program's topic: ``attempt`` (started; it waits for its files), ``dataset`` (it waits for the
dataset), the events of training, and ``ended`` (it waits until the run folder has been fetched).
"""

from __future__ import annotations

import asyncio
import queue
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from distributed import Status, get_worker

from multiseg.cluster import wire
from multiseg.dataset import Dataset, location
from multiseg.errors import DatasetError, MultisegError
from multiseg.job.job import Job
from multiseg.job.outcome import PATHS, train_one
from multiseg.run import requests
from multiseg.settings.resolved import Settings
from multiseg.training.signals import Stop

STEP_SECONDS = 0.5  # minimum time between two reported steps
POLL_SECONDS = 1.0
REPEAT_POLLS = 10
ENDING = (Status.closing, Status.closed, Status.failed)
RUN, MODEL, WEIGHTS, DATASET = "run", "model", "weights", "dataset"  # folders of an attempt


class Abandoned(MultisegError):
    """The program has ended, or has cancelled this attempt."""


@dataclass
class PlacedJob(Job):
    """A job that trains with copies of its files; ``origins`` are the original paths by setting, recorded in the run folder."""

    origins: Mapping[str, str] | None = None

    def resolve(self, dataset: Dataset | None = None) -> Settings:
        settings = super().resolve(dataset)
        return replace(settings, origins={**settings.origins, **(self.origins or {})})


class Attempt:
    """One attempt to train a job in this worker, with a temporary folder that is removed at the end."""

    def __init__(self, topic: str, job: str) -> None:
        self.id = uuid.uuid4().hex
        self.stop = Stop()
        self._topic, self._job = topic, job
        self._worker = get_worker()
        self._key = self._worker.get_current_task()
        self._answers: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._last_step = 0.0  # time of the last reported step
        self.folder = Path(self._worker.local_directory) / f"multiseg-{self.id}"
        # shared by all workers of this machine; the name is not a package's, since Dask adds this folder to Python's path
        self.store = Path(self._worker.local_directory).parent / "multiseg-datasets"

    def __enter__(self) -> Attempt:
        self.folder.mkdir(parents=True)
        _attempts[self.id] = self
        return self

    def __exit__(self, *error: object) -> None:
        del _attempts[self.id]
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def abandoned(self) -> bool:
        """Return whether the task has been cancelled or the worker is closing."""
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state == "cancelled" or self._worker.status in ENDING

    def tell(self, event: Mapping[str, Any]) -> None:
        """Send an event to the program."""
        message = {"job": self._job, "attempt": self.id, "worker": self._worker.address, **event}
        self._worker.log_event(self._topic, message)

    def ask(self, what: str) -> None:
        """Send a request to the program and wait for its answer. Raise Abandoned if the attempt is cancelled meanwhile."""
        while True:
            self.tell({"event": what})  # repeated: the program may not be subscribed yet
            for _ in range(REPEAT_POLLS):
                try:
                    return self._answers.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    self.check()

    def check(self) -> None:
        """Raise Abandoned if this attempt is abandoned."""
        if self.abandoned:
            raise Abandoned("the program that submitted this job has ended")

    def answer(self) -> None:
        """Deliver the program's answer, which ends the wait of :meth:`ask`."""
        self._answers.put(None)

    def listen(self, name: str, event: dict[str, Any]) -> None:
        """Forward an event of training to the program; steps at most every ``STEP_SECONDS``."""
        if self.abandoned:
            self.stop.ask()
        if event["event"] == "step":
            if time.monotonic() - self._last_step < STEP_SECONDS:
                return
            self._last_step = time.monotonic()
        self.tell(event)

    def dataset(self, identity: str, places: list[str]) -> Path:
        """Return the folder of the dataset with this identity; if it is not visible here, copy it once for all jobs."""
        with location.reserved(self.store, identity, self.check) as copy:
            folder = copy or location.find(identity, places, self.store)
            if folder is not None:
                return folder
            for place in places:
                if location.is_url(place):
                    return location.fetch(place, identity, self.store)
            self.ask("dataset")
            return location.keep(self.folder / DATASET, identity, self.store, places[0])


_attempts: dict[str, Attempt] = {}


def train(request: dict[str, Any]) -> dict[str, Any]:
    """Train one job; this is the Dask task. Return its ``status``, ``error`` and ``seconds``.

    The request contains ``topic``, ``job`` (its name), ``settings`` (plain values; paths are relative to the attempt's folder),
    ``origins`` (the program's paths of these files, and of the run ``folder``), ``identity`` and ``places`` of the dataset.
    """
    with Attempt(request["topic"], request["job"]) as attempt:
        attempt.ask("attempt")
        started = time.perf_counter()
        try:
            dataset = attempt.dataset(request["identity"], request["places"])
        except (DatasetError, OSError) as error:
            return {"status": "failed", "error": str(error), "seconds": time.perf_counter() - started}
        settings = request["settings"]
        paths = {
            key: attempt.folder / settings[key] for key in PATHS if settings.get(key) and key in request["origins"]
        }
        job = PlacedJob(**{**settings, **paths, "dataset": dataset, "origins": request["origins"]})
        outcome = train_one(request["job"], job, attempt.folder / RUN, attempt.stop, attempt.listen)
        origins = {str(path): request["origins"][key] for key, path in paths.items()}
        origins |= {
            str(dataset): request["origins"]["dataset"],
            str(attempt.folder / RUN): request["origins"]["folder"],
        }
        attempt.ask("ended")
        message = outcome.error  # with the paths of the machine where the program runs
        for path, origin in origins.items():
            message = message.replace(path, origin)
        return {"status": outcome.status, "error": message, "seconds": outcome.seconds}


def plain_settings(job: Job) -> dict[str, Any]:
    """Return a job's settings for the request, without paths (dataset, model, weights), which the caller adds."""
    values = {field.name: getattr(job, field.name) for field in fields(Job) if field.name not in PATHS}
    return {**values, "freeze": list(job.freeze)}


# Functions that the program calls in the worker. File access runs in a thread, so that the worker's event loop continues.


def answer(attempt: str) -> None:
    """Answer the request of a waiting attempt."""
    _attempts[attempt].answer()


def ask_to_stop(attempt: str) -> None:
    """Ask an attempt to stop with a snapshot, unless it has ended."""
    if attempt in _attempts:
        _attempts[attempt].stop.ask()


def pass_on(attempt: str, request: requests.Request) -> None:
    """Pass a request of somebody who watches the program's run folder on to an attempt, unless it has ended."""
    if attempt in _attempts:
        requests.ask(_attempts[attempt].folder / RUN, request)


async def listing(attempt: str) -> dict[str, wire.Stamp]:
    """Return the files of an attempt's run folder."""
    return await asyncio.to_thread(wire.listing, _attempts[attempt].folder / RUN)


async def read(attempt: str, places: list[wire.Place]) -> list[bytes | None]:
    """Return the content of places in files of an attempt's run folder."""
    return await asyncio.to_thread(wire.read, _attempts[attempt].folder / RUN, places)


async def write(attempt: str, pieces: list[wire.Piece]) -> None:
    """Write pieces of files to an attempt's folder."""
    await asyncio.to_thread(wire.write, _attempts[attempt].folder, pieces)
