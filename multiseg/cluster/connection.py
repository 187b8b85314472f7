"""The program's connection to a Dask cluster: its workers, what each can run, and connecting again."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from distributed import Client
from distributed.security import Security

from multiseg._version import __version__
from multiseg.cluster import offer
from multiseg.dataset import location
from multiseg.errors import ClusterError, SettingsError, TrainingStopped
from multiseg.job.job import Job
from multiseg.training.signals import Stop

CONNECT_SECONDS = 10.0  # for a scheduler to answer, and a worker to come, at first
PATIENCE_SECONDS = 120.0  # for a scheduler to come back
TRY_SECONDS = 3.0  # one of many tries meanwhile
LOOK_SECONDS = 30.0  # for a worker to load its frameworks
NEWCOMERS_SECONDS = 2.0  # between two looks for workers that have come
AT_ONCE = 16  # workers that are asked at a time
MISSING = "No module named 'multiseg"  # what a worker without it says, whose exception Dask passes on as another kind

if TYPE_CHECKING:
    from typing_extensions import Self

Offers = Mapping[str, Mapping[str, Any]]


class Connection:
    """A cluster by its scheduler: an address (``tcp://``, ``tls://``), a scheduler file, or a Dask client of your own.

    What Dask's configuration says of TLS holds. Raises ClusterError where no scheduler answers, or no worker is of use.
    """

    def __init__(self, scheduler: str | Path | Client) -> None:
        self._scheduler = scheduler
        self._own = not isinstance(scheduler, Client)
        self.topic = f"multiseg-{uuid.uuid4().hex}"
        self._lock = threading.Lock()  # of who renews
        self._looking = threading.Lock()  # of who looks into a dataset
        self._lost: ClusterError | None = None  # the scheduler has not come back
        self.events: dict[str, queue.SimpleQueue[dict[str, Any]]] = {}  # by job
        self._asked: set[str] = set()  # workers that have answered
        self.turns: dict[str, int] = {}  # of jobs, in the order of the table
        self._identities: dict[str, str] = {}  # of datasets, by place
        self._closed = threading.Event()
        self.client = scheduler if isinstance(scheduler, Client) else self._connect(CONNECT_SECONDS)
        try:
            self.client.subscribe_topic(self.topic, self._hear)
            self._offers = self._first_offers()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._look_for_newcomers, name="multiseg-newcomers", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; jobs that are still at work notice, and stop. A client that was given stays open."""
        self._closed.set()
        if self._own:
            self.client.close()
        else:
            self.client.unsubscribe_topic(self.topic)

    def placed(self, jobs: Mapping[str, Job], parallel: int) -> dict[str, Job]:
        """The jobs with what they need of a worker: ``threads`` and ``device``, the same wherever they run.

        ``parallel`` jobs share a worker's cores where they leave ``threads`` open. Raises one SettingsError for all jobs that no
        worker can run, with each worker's reason.
        """
        found, problems = {}, []
        for name, job in jobs.items():
            able = [said for said in self._offers.values() if not _lacks(said, job)]
            if not able:
                reasons = (f"  {address}: {_lacks(said, job)}" for address, said in self._offers.items())
                problems.append("\n".join([f"job {name!r}: no worker of the cluster can run it:", *reasons]))
                continue
            share = max(1, min(said["cores"] for said in able) // parallel)
            device = job.device if job.device != "auto" else "cuda" if any(said["gpus"] for said in able) else "cpu"
            found[name] = replace(job, threads=job.threads or share, device=device)
        if problems:
            raise SettingsError("\n".join(problems))
        self.turns = {name: number for number, name in enumerate(found)}
        return found

    def identity(self, place: str) -> str:
        """Of the dataset at a place, which is looked into once for all jobs. Raises DatasetError where there is none."""
        with self._looking:
            if place not in self._identities:
                at = location.identity_at(place) if location.is_url(place) else location.identity(Path(place))
                self._identities[place] = at
            return self._identities[place]

    def renew(self, lost: Client, stop: Stop) -> None:
        """Connect again, where no other job has by now.

        Raises ClusterError where the scheduler does not come back, TrainingStopped where that is not to be waited for.
        """
        while not self._lock.acquire(timeout=1):
            _check(stop)
        try:
            if self.client is not lost:
                return
            if self._lost is None:
                self._lost = self._reconnect(stop)
            if self._lost is not None:
                raise self._lost
        finally:
            self._lock.release()

    def _reconnect(self, stop: Stop) -> ClusterError | None:
        if not self._own:
            return ClusterError("the client that was given has lost its scheduler; connect again, and call again")
        self.client.close(timeout=1)
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            _check(stop)
            try:
                client = self._connect(TRY_SECONDS)
            except ClusterError as error:
                if time.monotonic() > end:
                    return ClusterError(f"{error}; the same command goes on when it is back")
            else:
                client.subscribe_topic(self.topic, self._hear)
                self._asked.clear()
                self.client = client
                return None

    def _connect(self, seconds: float) -> Client:
        at = str(self._scheduler)
        address = "://" in at
        if not address and not Path(at).is_file():
            raise ClusterError(
                f"{at}: is neither a scheduler's address, such as tcp://127.0.0.1:8786, nor a scheduler file"
            )
        mend = "start one with `dask scheduler --host 127.0.0.1`, and give the address that it prints"
        if at.startswith("tls:"):
            mend = "name certificates that it knows in Dask's configuration, distributed.comm.tls"
            if Security().get_connection_args("client").get("ssl_context") is None:
                raise ClusterError(f"{at}: needs a certificate, to show who asks; {mend}")
        try:
            where = {"address": at} if address else {"scheduler_file": at}
            return Client(**where, timeout=seconds, set_as_default=False, name="multiseg")
        except (OSError, ValueError) as error:
            raise ClusterError(f"{at}: no scheduler answers there ({error}); {mend}") from error

    def _first_offers(self) -> Offers:
        """What the workers offer that are there, of which one is of use."""
        at, end = self.client.scheduler.address, time.monotonic() + CONNECT_SECONDS
        while True:
            offers = self._offers_of(self.client, self.client.nthreads())
            if any(not each["problem"] for each in offers.values()):
                return offers
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        if not offers:
            raise ClusterError(
                f"{at}: has no worker; start some with `dask worker {at}`, where multiseg and its backends are installed"
            )
        reasons = "\n".join(f"  {address}: {each['problem']}" for address, each in offers.items())
        raise ClusterError(f"{at}: none of its workers can train:\n{reasons}")

    def _offers_of(self, client: Client, addresses: Iterable[str]) -> Offers:
        """What workers offer, which those that are of use announce; each is asked by itself, as one may not answer."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            offers = dict(pool.map(partial(self._offer_of, client), addresses))
        self._asked |= {address for address, said in offers.items() if said["answered"]}
        return offers

    def _offer_of(self, client: Client, address: str) -> tuple[str, Mapping[str, Any]]:
        def ask(function: Callable[..., Any]) -> Any:
            return client.run(function, workers=[address], callback_timeout=LOOK_SECONDS)[address]

        try:
            said = ask(offer.look)
            problem = _other_version(said)
            if problem is None:
                ask(offer.announce)
            return address, {**said, "problem": problem, "answered": True}
        except Exception as error:  # whatever another's process, or a connection, makes of it
            return address, {"problem": _in_our_words(error), "answered": MISSING in str(error)}

    def _look_for_newcomers(self) -> None:
        """Have workers announce themselves that come later."""
        while not self._closed.wait(NEWCOMERS_SECONDS):
            client = self.client
            with suppress(Exception):  # it is about to be lost, or closed
                there = client.nthreads() if client.status == "running" else {}
                self._offers_of(client, there.keys() - self._asked)

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        said = event[1]
        with suppress(KeyError):  # a job that has ended
            self.events[said["job"]].put(said)


def _check(stop: Stop) -> None:
    if stop.asked:
        raise TrainingStopped("stopped while its scheduler was away")


def _in_our_words(error: Exception) -> str:
    if MISSING in str(error):
        return "has no multiseg; install it there: pip install 'multiseg[cluster]'"
    if isinstance(error, TimeoutError):
        return f"has not answered within {LOOK_SECONDS:g} s"
    return f"{type(error).__name__}: {error}"


def _other_version(said: Mapping[str, Any]) -> str | None:
    if said["multiseg"] != __version__:
        return f"has multiseg {said['multiseg']}, this is {__version__}; install the same on both"
    return None


def _lacks(said: Mapping[str, Any], job: Job) -> str | None:
    """What a worker lacks for a job."""
    if said["problem"]:
        return str(said["problem"])
    if job.backend not in said["backends"]:
        return f"has no backend {job.backend!r}; it has: {', '.join(said['backends'])}"
    problem = said["backends"][job.backend]
    if problem:
        return str(problem)
    if job.threads > said["cores"]:
        return f"has cores={said['cores']}, the job wants threads={job.threads}"
    if job.device == "cuda" and not said["gpus"]:
        return "has no GPU that a backend sees"
    return None
