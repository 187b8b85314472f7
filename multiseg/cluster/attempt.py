"""A job in a Dask worker: the task that trains, and what the program calls in the worker meanwhile.

What the task tells goes as Dask events of the program's topic: ``attempt`` (it begins, and waits for its files), ``dataset`` (it
waits for that, too), the training's own events, ``ended`` (it waits for the run folder to be fetched).
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
from multiseg.settings.resolved import Settings
from multiseg.training.signals import Stop

STEP_SECONDS = 0.5  # between two steps that are told
POLL_SECONDS = 1.0
REPEAT_POLLS = 10
ENDING = (Status.closing, Status.closed, Status.failed)
RUN, MODEL, WEIGHTS, DATASET = "run", "model", "weights", "dataset"  # folders of an attempt


class Abandoned(MultisegError):
    """The program has gone, or has given this attempt up."""


@dataclass
class PlacedJob(Job):
    """A job whose files lie elsewhere than where its run folder says they are: ``origins``, by setting."""

    origins: Mapping[str, str] | None = None

    def resolve(self, dataset: Dataset | None = None) -> Settings:
        return replace(super().resolve(dataset), origins=dict(self.origins or {}))


class Attempt:
    """One try at a job in this worker, with a folder of its own that goes with it."""

    def __init__(self, topic: str, job: str) -> None:
        self.id = uuid.uuid4().hex
        self.stop = Stop()
        self._topic, self._job = topic, job
        self._worker = get_worker()
        self._key = self._worker.get_current_task()
        self._answers: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._told = 0.0  # when the last step was
        self.folder = Path(self._worker.local_directory) / f"multiseg-{self.id}"
        # beside the workers' own folders, for all of this machine; not called as a package: Dask has Python import from there
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
        """Whether nobody waits for the task any more, or the worker ends."""
        task = self._worker.state.tasks.get(self._key)
        return task is None or task.state == "cancelled" or self._worker.status in ENDING

    def tell(self, event: Mapping[str, Any]) -> None:
        """Tell the program."""
        said = {"job": self._job, "attempt": self.id, "worker": self._worker.address, **event}
        self._worker.log_event(self._topic, said)

    def ask(self, what: str) -> None:
        """Tell the program, and wait for its answer. Raises Abandoned where none will come."""
        while True:
            self.tell({"event": what})  # again after a while: it may not have listened yet
            for _ in range(REPEAT_POLLS):
                try:
                    return self._answers.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    self.check()

    def check(self) -> None:
        """Raise Abandoned where that is so."""
        if self.abandoned:
            raise Abandoned("the program that asked for this job has gone")

    def answer(self) -> None:
        """What the task waits for."""
        self._answers.put(None)

    def listen(self, name: str, event: dict[str, Any]) -> None:
        """What the training reports; of the many steps, one now and then."""
        if self.abandoned:
            self.stop.ask()
        if event["event"] == "step":
            if time.monotonic() - self._told < STEP_SECONDS:
                return
            self._told = time.monotonic()
        self.tell(event)

    def dataset(self, identity: str, places: list[str]) -> Path:
        """Where the dataset is that has this content; copied here first, once for all jobs, where it is not seen."""
        with location.reserved(self.store, identity, self.check) as copied:
            found = copied or location.find(identity, places, self.store)
            if found is not None:
                return found
            for place in places:
                if location.is_url(place):
                    return location.fetch(place, identity, self.store)
            self.ask("dataset")
            return location.keep(self.folder / DATASET, identity, self.store, places[0])


_attempts: dict[str, Attempt] = {}


def train(request: dict[str, Any]) -> dict[str, Any]:
    """The task: train one job, and tell what became of it: ``status``, ``error``, ``seconds``.

    The request holds ``topic``, ``job`` (its name), ``settings`` (a Job's, plain; paths are names in the attempt's folder),
    ``origins`` (where the program has these files, and the run ``folder``), ``identity`` and ``places`` of the dataset.
    """
    with Attempt(request["topic"], request["job"]) as attempt:
        attempt.ask("attempt")
        began = time.perf_counter()
        try:
            dataset = attempt.dataset(request["identity"], request["places"])
        except (DatasetError, OSError) as error:
            return {"status": "failed", "error": str(error), "seconds": time.perf_counter() - began}
        settings = request["settings"]
        given = {key: attempt.folder / settings[key] for key in PATHS if settings.get(key)}
        job = PlacedJob(**{**settings, **given, "dataset": dataset, "origins": request["origins"]})
        outcome = train_one(request["job"], job, attempt.folder / RUN, attempt.stop, attempt.listen)
        here = {str(given[key]): request["origins"][key] for key in given} | {
            str(dataset): request["origins"]["dataset"]
        }
        attempt.ask("ended")
        said = outcome.error  # for where the program runs
        for path, origin in {**here, str(attempt.folder / RUN): request["origins"]["folder"]}.items():
            said = said.replace(path, origin)
        return {"status": outcome.status, "error": said, "seconds": outcome.seconds}


def plain_settings(job: Job) -> dict[str, Any]:
    """A job's settings but for the dataset, as the request has them; its files are left to the caller."""
    found = {each.name: getattr(job, each.name) for each in fields(Job) if each.name not in PATHS}
    return {**found, "freeze": list(job.freeze)}


# What the program calls in the worker. Those that touch files do so in a thread: the worker goes on meanwhile.


def answer(attempt: str) -> None:
    """Let the attempt go on that waits for an answer."""
    _attempts[attempt].answer()


def ask_to_stop(attempt: str) -> None:
    """Have the attempt end in good order, unless it has ended."""
    if attempt in _attempts:
        _attempts[attempt].stop.ask()


async def listing(attempt: str) -> dict[str, wire.Stamp]:
    """The files of the attempt's run folder."""
    return await asyncio.to_thread(wire.listing, _attempts[attempt].folder / RUN)


async def read(attempt: str, places: list[wire.Place]) -> list[bytes | None]:
    """Places in files of the attempt's run folder."""
    return await asyncio.to_thread(wire.read, _attempts[attempt].folder / RUN, places)


async def write(attempt: str, pieces: list[wire.Piece]) -> None:
    """Write pieces of files in the attempt's folder."""
    await asyncio.to_thread(wire.write, _attempts[attempt].folder, pieces)
