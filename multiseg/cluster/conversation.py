"""Run one job on the cluster, from the program's side: send its files, receive its events, and fetch the run folder."""

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
from multiseg.dataset.names import FILE, TRAIN, VAL
from multiseg.errors import ClusterError, DatasetError, MultisegError, TrainingStopped
from multiseg.job.job import Job
from multiseg.job.outcome import Outcome, Report, place_of
from multiseg.model_files import choosing, copies, shipped
from multiseg.run import requests
from multiseg.run.folder import RunFolder
from multiseg.run.names import HISTORY
from multiseg.run.reading import is_run
from multiseg.training.live import LiveProgress
from multiseg.training.signals import Stop
from multiseg.worker import choice

POLL_SECONDS = 0.2
UPDATE_SECONDS = 2.0  # after which the copy of the run folder is updated even while events keep arriving
CALL_SECONDS = 10.0  # within which calls to a failing worker are repeated, until Dask notices that it died
ANSWER_SECONDS = 60.0  # timeout of one call
LOST = ("cancelled", "lost")


class _WorkerLost(Exception):
    """The worker of the current attempt died: Dask starts another attempt."""


class _SchedulerLost(Exception):
    """The scheduler died, and the task with it."""


class Conversation:
    """The communication about one job. ``events`` receives the events of its attempts."""

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
        self._attempt, self._worker = "", ""  # id of the current attempt, address of its worker
        self._mirror = Mirror(folder, job.keep)
        self._progress = LiveProgress(folder)
        self._started = self._changed = False
        self._answered: set[tuple[str, str]] = set()  # (attempt, request)

    def outcome(self) -> Outcome:
        """Train the job and return its outcome; errors of multiseg are returned in it, not raised."""
        started = time.perf_counter()
        try:
            return self._train()
        except TrainingStopped as problem:
            status, error = "stopped", str(problem)
        except (MultisegError, OSError) as problem:
            status, error = "failed", str(problem)
        return self._outcome(status, error, time.perf_counter() - started)

    def _outcome(self, status: Any, error: str = "", seconds: float = 0.0) -> Outcome:
        return Outcome(self._name, self._folder, status, error, seconds)

    def _train(self) -> Outcome:
        folder, job = self._folder, self._job
        exists = folder.is_dir() and any(folder.iterdir())
        identity = self._cluster.identity(_place(job))
        if exists:
            run = RunFolder.resume(folder)
            run.complete(
                job.resolve(), location.content_hash(identity), job.seed
            )  # raises errors before a worker is used
            if run.finished:
                return self._outcome("skipped")
        else:
            run = RunFolder.create(folder)
        try:
            with run.locked():
                return self._converse(identity)
        finally:
            if not exists and not (folder / HISTORY).exists():  # nothing was trained
                shutil.rmtree(folder, ignore_errors=True)

    def _converse(self, identity: str) -> Outcome:
        job = self._job
        needs = {offer.CORES: job.threads, offer.resource(job.backend): 1}
        if job.device == "cuda":
            needs[offer.GPU] = 1
        request = self._request(identity)
        while True:
            client = self._cluster.client
            # a unique key, or Dask would merge two jobs with the same settings
            key = f"multiseg-{self._name}-{uuid.uuid4().hex}"
            turn = self._cluster.turns.get(self._name, 0)
            future = client.submit(attempt.train, request, key=key, resources=needs, priority=-turn, pure=False)
            try:
                return self._follow(client, future)
            except _SchedulerLost:
                self._tell(
                    {"event": "lost", "error": "the scheduler was lost; waiting for it and its workers to come back"}
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
            if key == "model" and shipped.find(value) is not None:
                settings[key] = str(value)
            elif key == "model" and value is not None:
                model = self._model()
                settings[key], settings["model_options"] = f"{key}/{model.name}", {}
                settings["outputs"] = []  # in the file of the choice
                origins[key] = choosing.word_of(model) or str(model)
            elif value is not None:
                path = Path(value).resolve()
                settings[key], origins[key] = f"{key}/{path.name}", str(path)
        return {
            "topic": self._topic, "job": self._name, "settings": settings, "origins": origins, "identity": identity,
            "places": [place],
        }  # fmt: skip

    def _follow(self, client: Client, future: Future) -> Outcome:
        """Process events until the task is done, and return its outcome. Raise _SchedulerLost if the task is lost."""
        asked: str | None = None  # the attempt that was asked to stop; empty for a task without an attempt
        updated = time.monotonic()
        while True:
            try:
                try:
                    self._handle(client, self._events.get(timeout=POLL_SECONDS))
                    idle = self._events.empty()
                except queue.Empty:
                    if future.done():
                        break
                    idle = True
                if self._stop.asked and asked != self._attempt:
                    asked = self._attempt
                    if not asked:
                        future.cancel()
                        return self._outcome(
                            "stopped", "waiting for another worker" if self._started else "not started"
                        )
                    self._call(client, attempt.ask_to_stop)
                if self._attempt and (request := requests.take(self._folder)):
                    self._call(client, attempt.pass_on, request)
                if self._changed and (idle or time.monotonic() - updated > UPDATE_SECONDS):
                    self._update(client)
                    updated = time.monotonic()
            except _WorkerLost:
                if not future.done() and client.status == "running":
                    self._tell({"event": "lost", "error": f"{self._worker} was lost; waiting for another worker"})
                self._attempt = ""
        if future.status in LOST:
            raise _SchedulerLost
        if future.status == "error":
            problem = future.exception()
            return self._outcome("failed", f"{type(problem).__name__}: {problem}")
        return self._outcome(**future.result())

    def _handle(self, client: Client, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind in ("attempt", "dataset", "ended"):
            if (event["attempt"], kind) in self._answered:  # a request is repeated until it is answered
                return
            self._answered.add((event["attempt"], kind))
        if kind == "attempt":
            self._attempt, self._worker, self._started = event["attempt"], event["worker"], True
            self._mirror = Mirror(self._folder, self._job.keep)
            self._tell(event)
            self._send(client, self._files())
            self._call(client, attempt.answer)
        elif event["attempt"] != self._attempt:  # an attempt that was given up
            return
        elif kind == "dataset":
            self._tell(event)
            files = _files_of_dataset(Path(_place(self._job)))
            self._send(client, {f"{attempt.DATASET}/{name}": path for name, path in files.items()})
            self._call(client, attempt.answer)
        elif kind == "ended":
            self._mirror.finish(lambda: self._update(client, ended=True), lambda: self._stop.asked)
            self._call(client, attempt.answer)
        else:
            self._changed = self._changed or kind != "step"
            self._progress(event)
            self._tell(event)

    def _tell(self, event: Mapping[str, Any]) -> None:
        if self._report:
            public = {key: value for key, value in event.items() if key not in ("job", "attempt")}
            self._report(self._name, public)

    def _model(self) -> Path:
        """Return the job's network file, or the file of a choice in one."""
        assert self._job.model is not None
        return choosing.path_of(self._job.model, options=self._job.model_options, outputs=self._job.outputs).resolve()

    def _files(self) -> dict[str, Path]:
        """Return the files that an attempt needs, by their names in its folder."""
        files = {}
        if self._job.model is not None and shipped.find(self._job.model) is None:
            model = self._model()
            files = {f"{attempt.MODEL}/{name}": path for name, path in copies.named_parts(model).items()}
            if choice.is_choice(model):
                files[f"{attempt.MODEL}/{model.name}"] = choosing.portable(model)
        if self._job.weights is not None:
            files |= {f"{attempt.WEIGHTS}/{name}": path for name, path in _files_of_weights(self._job.weights).items()}
        return files | {f"{attempt.RUN}/{name}": self._folder / name for name in to_resume(self._folder)}

    def _send(self, client: Client, files: Mapping[str, Path]) -> None:
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
        listing = self._call(client, attempt.listing)
        return self._mirror.update(listing, lambda places: self._call(client, attempt.read, places), ended)

    def _call(self, client: Client, function: Any, *arguments: Any) -> Any:
        """Call a function in the worker of the current attempt. Raise _WorkerLost if the worker or the attempt has ended."""
        end = time.monotonic() + CALL_SECONDS
        while True:
            try:
                # checked first: Dask would try for half a minute to connect to a worker that died
                if self._worker in client.nthreads(workers=[self._worker]):
                    return client.run(
                        function, self._attempt, *arguments, workers=[self._worker], callback_timeout=ANSWER_SECONDS
                    )[self._worker]
                raise _WorkerLost
            except TimeoutError:  # the worker hangs: the scheduler determines whether it died
                if self._stop.asked:
                    raise _WorkerLost from None
            except Exception as error:  # any error of a dying worker or a lost scheduler
                if (
                    isinstance(error, (_WorkerLost, KeyError)) or client.status != "running"
                ):  # KeyError: the attempt has ended
                    raise _WorkerLost from error
                if time.monotonic() > end:
                    raise ClusterError(f"{self._worker}: {type(error).__name__}: {error}") from error
                time.sleep(POLL_SECONDS)


def _place(job: Job) -> str:
    place = place_of(job)
    return str(place) if location.is_url(place) else str(Path(place).resolve())


def _files_of_dataset(folder: Path) -> dict[str, Path]:
    names = [name for name in wire.listing(folder) if name == FILE or name.split("/")[0] in (TRAIN, VAL)]
    files = {name: folder / name for name in names if not name.endswith("lock.mdb")}
    if not files:
        raise DatasetError(f"{folder}: has no dataset files to send; is it still a dataset folder?")
    return files


def _files_of_weights(weights: str | Path) -> dict[str, Path]:
    """Return the files of ``weights=``: a run with its last snapshot, a folder, a file, or a TensorFlow checkpoint's prefix."""
    path = Path(weights).resolve()
    if path.is_dir():
        names = to_resume(path) if is_run(path) else list(wire.listing(path))
        return {f"{path.name}/{name}": path / name for name in names}
    parts = path.parent.glob(f"{glob.escape(path.name)}.*")
    return {file.name: file for file in (path, *parts) if file.is_file()}
