"""The program's side of one job on the cluster: gives its files, hears what happens, and fetches the run folder."""

from __future__ import annotations

import glob
import queue
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distributed import Client, Future

from multiseg.cluster import attempt, offer, wire
from multiseg.cluster.connection import Connection
from multiseg.cluster.mirror import Mirror, to_resume
from multiseg.dataset import location
from multiseg.errors import ClusterError, DatasetError, MultisegError, TrainingStopped
from multiseg.job.job import Job
from multiseg.job.outcome import Outcome, Report, place_of
from multiseg.model_files import copies
from multiseg.run.folder import RunFolder
from multiseg.run.names import HISTORY
from multiseg.run.reading import is_run
from multiseg.training.signals import Stop

POLL_SECONDS = 0.2
UPDATE_SECONDS = 2.0  # after which the run folder's copy is brought up to date, however much there is to hear
CALL_SECONDS = 10.0  # in which one that is about to go is found to be gone
ANSWER_SECONDS = 60.0  # for one call
LOST = ("cancelled", "lost")


class _Gone(Exception):
    """The worker of the present attempt has gone: Dask begins another one."""


class _SchedulerLost(Exception):
    """So is the task."""


class Conversation:
    """One job's. ``events`` is filled with what its attempts tell."""

    def __init__(
        self,
        cluster: Connection,
        topic: str,
        events: queue.SimpleQueue[dict[str, Any]],
        name: str,
        job: Job,
        folder: Path,
        stop: Stop,
        report: Report | None,
    ) -> None:
        self._cluster, self._topic, self._events = cluster, topic, events
        self._name, self._job, self._folder = name, job, folder
        self._stop, self._report = stop, report
        self._attempt, self._worker = "", ""  # the present one's id, and its worker's address
        self._mirror = Mirror(folder, job.keep, job.metric)
        self._begun = self._changed = False
        self._answered: set[tuple[str, str]] = set()  # questions, by attempt

    def outcome(self) -> Outcome:
        """Train the job; never raises what multiseg raises on purpose."""
        began = time.perf_counter()
        try:
            return self._train()
        except TrainingStopped as problem:
            status, error = "stopped", str(problem)
        except (MultisegError, OSError) as problem:
            status, error = "failed", str(problem)
        return self._outcome(status, error, time.perf_counter() - began)

    def _outcome(self, status: Any, error: str = "", seconds: float = 0.0) -> Outcome:
        return Outcome(self._name, self._folder, status, error, seconds)

    def _train(self) -> Outcome:
        folder, job = self._folder, self._job
        there = folder.is_dir() and any(folder.iterdir())
        identity = self._cluster.identity(_place(job))
        if there:
            run = RunFolder.resume(folder)
            run.complete(job.resolve(), location.content_hash(identity), job.seed)  # an error before a worker is asked
            if run.finished:
                return self._outcome("skipped")
        else:
            run = RunFolder.create(folder)
        try:
            with run.locked():
                return self._converse(identity)
        finally:
            if not there and not (folder / HISTORY).exists():  # nothing was trained
                shutil.rmtree(folder, ignore_errors=True)

    def _converse(self, identity: str) -> Outcome:
        job = self._job
        needs = {offer.CORES: job.threads, offer.resource(job.backend): 1}
        if job.device == "cuda":
            needs[offer.GPU] = 1
        request = self._request(identity)
        while True:
            client = self._cluster.client
            # a key of its own: two jobs of the same settings are two jobs
            key = f"multiseg-{self._name}-{uuid.uuid4().hex}"
            turn = self._cluster.turns.get(self._name, 0)
            future = client.submit(attempt.train, request, key=key, resources=needs, priority=-turn, pure=False)
            try:
                return self._follow(client, future)
            except _SchedulerLost:
                self._tell(
                    {"event": "lost", "error": "the scheduler has gone; waiting for it to come back, with workers"}
                )
                self._cluster.renew(client, self._stop)
            finally:
                if not future.done():
                    future.cancel()  # its attempt stops by itself
                self._attempt = ""

    def _request(self, identity: str) -> dict[str, Any]:
        job, place = self._job, _place(self._job)
        settings = attempt.plain_settings(job)
        origins = {"dataset": place, "folder": str(self._folder)}
        for key, value in (("model", job.model), ("weights", job.weights)):
            if value is not None:
                path = Path(value).resolve()
                settings[key], origins[key] = f"{key}/{path.name}", str(path)
        return {
            "topic": self._topic, "job": self._name, "settings": settings, "origins": origins, "identity": identity,
            "places": [place],
        }  # fmt: skip

    def _follow(self, client: Client, future: Future) -> Outcome:
        """Until the task is done. Raises _SchedulerLost where it will not be."""
        asked: str | None = None  # what was asked to stop: an attempt, or the task that is none yet
        updated = time.monotonic()
        while True:
            try:
                try:
                    self._hear(client, self._events.get(timeout=POLL_SECONDS))
                    quiet = self._events.empty()
                except queue.Empty:
                    if future.done():
                        break
                    quiet = True
                if self._stop.asked and asked != self._attempt:
                    asked = self._attempt
                    if not asked:
                        future.cancel()
                        return self._outcome("stopped", "waiting for another worker" if self._begun else "not begun")
                    self._call(client, attempt.ask_to_stop)
                if self._changed and (quiet or time.monotonic() - updated > UPDATE_SECONDS):
                    self._update(client)
                    updated = time.monotonic()
            except _Gone:
                if not future.done() and client.status == "running":
                    self._tell({"event": "lost", "error": f"{self._worker} has gone; waiting for another one"})
                self._attempt = ""
        if future.status in LOST:
            raise _SchedulerLost
        if future.status == "error":
            problem = future.exception()
            return self._outcome("failed", f"{type(problem).__name__}: {problem}")
        return self._outcome(**future.result())

    def _hear(self, client: Client, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind in ("attempt", "dataset", "ended"):
            if (event["attempt"], kind) in self._answered:  # it asks again where the answer takes long
                return
            self._answered.add((event["attempt"], kind))
        if kind == "attempt":
            self._attempt, self._worker, self._begun = event["attempt"], event["worker"], True
            self._mirror = Mirror(self._folder, self._job.keep, self._job.metric)
            self._tell(event)
            self._give(client, self._files())
            self._call(client, attempt.answer)
        elif event["attempt"] != self._attempt:  # one that was given up
            return
        elif kind == "dataset":
            self._tell(event)
            files = _files_of_dataset(Path(_place(self._job)))
            self._give(client, {f"{attempt.DATASET}/{name}": path for name, path in files.items()})
            self._call(client, attempt.answer)
        elif kind == "ended":
            while not self._update(client, ended=True):
                time.sleep(POLL_SECONDS)
            self._call(client, attempt.answer)
        else:
            self._changed = self._changed or kind != "step"
            self._tell(event)

    def _tell(self, event: Mapping[str, Any]) -> None:
        if self._report:
            said = {key: value for key, value in event.items() if key not in ("job", "attempt")}
            self._report(self._name, said)

    def _files(self) -> dict[str, Path]:
        """What an attempt starts from, by its names there."""
        found = {}
        if self._job.model is not None:
            model = Path(self._job.model).resolve()
            found = {f"{attempt.MODEL}/{each.relative_to(model.parent)}": each for each in copies.parts(model)}
        if self._job.weights is not None:
            found |= {f"{attempt.WEIGHTS}/{name}": path for name, path in _files_of_weights(self._job.weights).items()}
        return found | {f"{attempt.RUN}/{name}": self._folder / name for name in to_resume(self._folder)}

    def _give(self, client: Client, files: Mapping[str, Path]) -> None:
        stamps = {name: (path.stat().st_size, 0) for name, path in files.items()}
        for places in wire.messages(stamps):
            pieces = []
            for name, start, size, _ in places:
                with files[name].open("rb") as file:
                    file.seek(start)
                    pieces.append((name, start, file.read(size)))
            self._call(client, attempt.write, pieces)

    def _update(self, client: Client, ended: bool = False) -> bool:
        self._changed = False
        if not self._attempt:
            return False
        there = self._call(client, attempt.listing)
        return self._mirror.update(there, lambda places: self._call(client, attempt.read, places), ended)

    def _call(self, client: Client, function: Any, *arguments: Any) -> Any:
        """Call a function of the present attempt's worker. Raises _Gone where there is none any more."""
        end = time.monotonic() + CALL_SECONDS
        while True:
            try:
                # to one that has gone, Dask would try to connect for half a minute
                if self._worker in client.nthreads(workers=[self._worker]):
                    return client.run(
                        function, self._attempt, *arguments, workers=[self._worker], callback_timeout=ANSWER_SECONDS
                    )[self._worker]
                raise _Gone
            except TimeoutError:  # a worker that hangs: the scheduler will find out whether it has gone
                if self._stop.asked:
                    raise _Gone from None
            except Exception as error:  # whatever a worker about to die, or a lost scheduler, makes of it
                if (
                    isinstance(error, (_Gone, KeyError)) or client.status != "running"
                ):  # KeyError: no such attempt any more
                    raise _Gone from error
                if time.monotonic() > end:
                    raise ClusterError(f"{self._worker}: {type(error).__name__}: {error}") from error
                time.sleep(POLL_SECONDS)


def _place(job: Job) -> str:
    place = place_of(job)
    return str(place) if location.is_url(place) else str(Path(place).resolve())


def _files_of_dataset(folder: Path) -> dict[str, Path]:
    names = [
        name for name in wire.listing(folder) if name == "dataset.json" or name.split("/")[0] in ("train_db", "val_db")
    ]
    found = {name: folder / name for name in names if not name.endswith("lock.mdb")}
    if not found:
        raise DatasetError(f"{folder}: has no files that can be sent; is it still a dataset folder?")
    return found


def _files_of_weights(weights: str | Path) -> dict[str, Path]:
    """A run with its last snapshot; a folder; or a file, a TensorFlow checkpoint's prefix among them."""
    path = Path(weights).resolve()
    if path.is_dir():
        names = to_resume(path) if is_run(path) else list(wire.listing(path))
        return {f"{path.name}/{name}": path / name for name in names}
    beside = path.parent.glob(f"{glob.escape(path.name)}.*")
    return {each.name: each for each in (path, *beside) if each.is_file()}
