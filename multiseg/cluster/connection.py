"""Connect to a Dask cluster, reconnect if the scheduler is lost, and determine which jobs its workers can run."""

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

CONNECT_SECONDS = 10.0  # timeout for the first answer of a scheduler, and for its first worker
PATIENCE_SECONDS = 120.0  # how long to wait for a lost scheduler
TRY_SECONDS = 3.0  # timeout of one attempt to reconnect
LOOK_SECONDS = 30.0  # timeout for a worker to load its frameworks
NEWCOMERS_SECONDS = 2.0  # interval at which new workers are looked for
AT_ONCE = 16  # workers queried concurrently
MISSING = "No module named 'multiseg"  # the error of a worker without multiseg, which Dask may raise as another type

if TYPE_CHECKING:
    from typing_extensions import Self

Offers = Mapping[str, Mapping[str, Any]]


class Connection:
    """A connection to a cluster's scheduler: an address (``tcp://``, ``tls://``), a scheduler file, or an existing Dask client.

    TLS is configured by Dask's configuration. Raises ClusterError if no scheduler answers, or no worker can train.
    """

    def __init__(self, scheduler: str | Path | Client) -> None:
        self._scheduler = scheduler
        self._own = not isinstance(scheduler, Client)
        self.topic = f"multiseg-{uuid.uuid4().hex}"
        self._renew_lock = threading.Lock()
        self._identity_lock = threading.Lock()
        self._lost: ClusterError | None = None  # set if reconnecting failed
        self.events: dict[str, queue.SimpleQueue[dict[str, Any]]] = {}  # by job
        self._known: set[str] = set()  # workers that have answered
        self.turns: dict[str, int] = {}  # position of each job in the order of submission
        self._identities: dict[str, str] = {}  # of datasets, by place
        self._closed = threading.Event()
        self.client = scheduler if isinstance(scheduler, Client) else self._connect(CONNECT_SECONDS)
        try:
            self.client.subscribe_topic(self.topic, self._receive)
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
        """Disconnect from the cluster; running jobs notice this and stop. A client passed by the caller stays open."""
        self._closed.set()
        if self._own:
            self.client.close()
        else:
            self.client.unsubscribe_topic(self.topic)

    def placed(self, jobs: Mapping[str, Job], parallel: int) -> dict[str, Job]:
        """Return the jobs with ``threads`` and ``device`` set, to the same values for every worker.

        ``parallel`` jobs share the cores of a worker, unless they specify ``threads``. Raises one SettingsError for all jobs that
        no worker can run, with each worker's reason.
        """
        placed, problems = {}, []
        for name, job in jobs.items():
            suitable = [offered for offered in self._offers.values() if not _problem(offered, job)]
            if not suitable:
                reasons = (f"  {address}: {_problem(offered, job)}" for address, offered in self._offers.items())
                problems.append("\n".join([f"job {name!r}: no worker of the cluster can run it:", *reasons]))
                continue
            share = max(1, min(offered["cores"] for offered in suitable) // parallel)
            has_gpu = any(offered["gpus"] for offered in suitable)
            device = job.device if job.device != "auto" else "cuda" if has_gpu else "cpu"
            placed[name] = replace(job, threads=job.threads or share, device=device)
        if problems:
            raise SettingsError("\n".join(problems))
        self.turns = {name: number for number, name in enumerate(placed)}
        return placed

    def identity(self, place: str) -> str:
        """Return the identity of the dataset at a place; read once for all jobs. Raise DatasetError if there is no dataset."""
        with self._identity_lock:
            if place not in self._identities:
                is_url = location.is_url(place)
                self._identities[place] = location.identity_at(place) if is_url else location.identity(Path(place))
            return self._identities[place]

    def renew(self, lost: Client, stop: Stop) -> None:
        """Reconnect, unless another job has already done so.

        Raises ClusterError if the scheduler does not come back, TrainingStopped if ``stop`` is requested meanwhile.
        """
        while not self._renew_lock.acquire(timeout=1):
            _check(stop)
        try:
            if self.client is not lost:
                return
            if self._lost is None:
                self._lost = self._reconnect(stop)
            if self._lost is not None:
                raise self._lost
        finally:
            self._renew_lock.release()

    def _reconnect(self, stop: Stop) -> ClusterError | None:
        if not self._own:
            return ClusterError("the Dask client has lost its scheduler; create a new client, and call again")
        self.client.close(timeout=1)
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            _check(stop)
            try:
                client = self._connect(TRY_SECONDS)
            except ClusterError as error:
                if time.monotonic() > end:
                    return ClusterError(f"{error}; run the same command again to resume when it is back")
            else:
                client.subscribe_topic(self.topic, self._receive)
                self._known.clear()
                self.client = client
                return None

    def _connect(self, seconds: float) -> Client:
        scheduler = str(self._scheduler)
        is_address = "://" in scheduler
        if not is_address and not Path(scheduler).is_file():
            raise ClusterError(
                f"{scheduler}: is neither a scheduler's address, such as tcp://127.0.0.1:8786, nor a scheduler file"
            )
        fix = "start one with `dask scheduler --host 127.0.0.1`, and specify the address that it prints"
        if scheduler.startswith("tls:"):
            fix = "specify certificates that the scheduler accepts in Dask's configuration, distributed.comm.tls"
            if Security().get_connection_args("client").get("ssl_context") is None:
                raise ClusterError(f"{scheduler}: needs a client certificate; {fix}")
        try:
            target = {"address": scheduler} if is_address else {"scheduler_file": scheduler}
            return Client(**target, timeout=seconds, set_as_default=False, name="multiseg")
        except (OSError, ValueError) as error:
            raise ClusterError(f"{scheduler}: no scheduler answers there ({error}); {fix}") from error

    def _first_offers(self) -> Offers:
        """Return the offers of all workers once at least one of them can train. Raise ClusterError if none can."""
        address, end = self.client.scheduler.address, time.monotonic() + CONNECT_SECONDS
        while True:
            offers = self._offers_of(self.client, self.client.nthreads())
            if any(not offered["problem"] for offered in offers.values()):
                return offers
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        if not offers:
            raise ClusterError(
                f"{address}: has no worker; start workers with `dask worker {address}`, where multiseg and its backends are "
                "installed"
            )
        reasons = "\n".join(f"  {worker}: {offered['problem']}" for worker, offered in offers.items())
        raise ClusterError(f"{address}: none of its workers can train:\n{reasons}")

    def _offers_of(self, client: Client, addresses: Iterable[str]) -> Offers:
        """Return what workers offer; suitable ones announce it. Each is queried separately, since one may not answer."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            offers = dict(pool.map(partial(self._offer_of, client), addresses))
        self._known |= {address for address, offered in offers.items() if offered["answered"]}
        return offers

    def _offer_of(self, client: Client, address: str) -> tuple[str, Mapping[str, Any]]:
        def call(function: Callable[..., Any]) -> Any:
            return client.run(function, workers=[address], callback_timeout=LOOK_SECONDS)[address]

        try:
            offered = call(offer.look)
            problem = _version_problem(offered)
            if problem is None:
                call(offer.announce)
            return address, {**offered, "problem": problem, "answered": True}
        except Exception as error:  # any error of the remote process or of the connection
            return address, {"problem": _explain(error), "answered": MISSING in str(error)}

    def _look_for_newcomers(self) -> None:
        """Query workers that join later, so that they announce their resources."""
        while not self._closed.wait(NEWCOMERS_SECONDS):
            client = self.client
            with suppress(Exception):  # the client is being closed, or has lost its scheduler
                workers = client.nthreads() if client.status == "running" else {}
                self._offers_of(client, workers.keys() - self._known)

    def _receive(self, event: tuple[float, dict[str, Any]]) -> None:
        message = event[1]
        with suppress(KeyError):  # the job has ended
            self.events[message["job"]].put(message)


def _check(stop: Stop) -> None:
    if stop.asked:
        raise TrainingStopped("stopped while the scheduler was unreachable")


def _explain(error: Exception) -> str:
    """Return why a worker cannot be used."""
    if MISSING in str(error):
        return "has no multiseg; install it there: pip install 'multiseg[cluster]'"
    if isinstance(error, TimeoutError):
        return f"did not answer within {LOOK_SECONDS:g} s"
    return f"{type(error).__name__}: {error}"


def _version_problem(offered: Mapping[str, Any]) -> str | None:
    if offered["multiseg"] != __version__:
        return f"has multiseg {offered['multiseg']}, this is {__version__}; install the same version on both"
    return None


def _problem(offered: Mapping[str, Any], job: Job) -> str | None:
    """Return why a worker cannot run a job, or None."""
    if offered["problem"]:
        return str(offered["problem"])
    if job.backend not in offered["backends"]:
        return f"has no backend {job.backend!r}; it has: {', '.join(offered['backends'])}"
    problem = offered["backends"][job.backend]
    if problem:
        return str(problem)
    if job.threads > offered["cores"]:
        return f"has cores={offered['cores']}, the job needs threads={job.threads}"
    if job.device == "cuda" and not offered["gpus"]:
        return "has no GPU that a backend can use"
    return None
