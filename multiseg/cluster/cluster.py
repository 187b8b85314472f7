"""The program's connection to a Dask cluster: who can run what, and jobs that run there."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from distributed import Client
from distributed.security import Security

import multiseg
from multiseg.cluster import offer
from multiseg.cluster.conversation import Conversation
from multiseg.errors import ClusterError, SettingsError
from multiseg.job import Job
from multiseg.jobs import Outcome, Report
from multiseg.stopping import Stop

CONNECT_SECONDS = 10.0  # for a scheduler to answer at first
PATIENCE_SECONDS = 120.0  # for one to come back, and for the first worker

Offers = Mapping[str, Mapping[str, Any]]


class Cluster:
    """A cluster by its scheduler: an address (``tcp://``, ``tls://``), a scheduler file, or a Dask client of your own.

    What Dask's configuration says of TLS holds. Raises ClusterError where no scheduler answers, or no worker comes.
    """

    def __init__(self, scheduler: str | Path | Client) -> None:
        self._scheduler = scheduler
        self._own = not isinstance(scheduler, Client)
        self._topic = f"multiseg-{uuid.uuid4().hex}"
        self._lock = threading.Lock()
        self._events: dict[str, queue.SimpleQueue[dict[str, Any]]] = {}  # by job
        self.client = scheduler if isinstance(scheduler, Client) else self._connect(CONNECT_SECONDS)
        try:
            self._offers = self._begin(CONNECT_SECONDS)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster; a client that was given stays open."""
        if self._own:
            self.client.close()
        else:
            self.client.unsubscribe_topic(self._topic)

    def placed(self, jobs: Mapping[str, Job], parallel: int) -> dict[str, Job]:
        """The jobs with what they need of a worker: ``threads`` and ``device``, the same wherever they run.

        ``parallel`` jobs share a worker's cores where they leave ``threads`` open. Raises one SettingsError for all jobs that no
        worker can run, with each worker's reason.
        """
        found, problems = {}, []
        for name, job in jobs.items():
            able = {address: said for address, said in self._offers.items() if not _lacks(said, job)}
            if not able:
                reasons = (f"  {address}: {_lacks(said, job)}" for address, said in self._offers.items())
                problems.append("\n".join([f"job {name!r}: no worker of the cluster can run it:", *reasons]))
                continue
            share = max(1, min(said["cores"] for said in able.values()) // parallel)
            gpu = any(said["gpus"] for said in able.values())
            device = job.device if job.device != "auto" else "cuda" if gpu else "cpu"
            found[name] = replace(job, threads=job.threads or share, device=device)
        if problems:
            raise SettingsError("\n".join(problems))
        return found

    def train_one(self, name: str, job: Job, folder: Path, stop: Stop, report: Report | None) -> Outcome:
        """Train one placed job somewhere in the cluster; ``folder`` becomes what it would be had it been trained here."""
        events = self._events[name] = queue.SimpleQueue()
        return Conversation(self, self._topic, events, name, job, folder, stop, report).outcome()

    def renew(self, lost: Client) -> None:
        """Connect again, where no other job has by now. Raises ClusterError where the scheduler does not come back."""
        with self._lock:
            if self.client is not lost:
                return
            if not self._own:
                raise ClusterError("the client that was given has lost its scheduler; connect again, and call again")
            lost.close(timeout=1)
            self.client = self._connect(PATIENCE_SECONDS)
            self._begin(PATIENCE_SECONDS)

    def _connect(self, seconds: float) -> Client:
        at = str(self._scheduler)
        where = {"scheduler_file": at} if at.endswith(".json") else {"address": at}
        mend = "start one with `dask scheduler --host 127.0.0.1`, and give the address that it prints"
        if at.startswith("tls:"):
            mend = "name certificates that it knows in Dask's configuration, distributed.comm.tls"
            if Security().get_connection_args("client").get("ssl_context") is None:
                raise ClusterError(f"{at}: needs a certificate, to show who asks; {mend}")
        try:
            return Client(**where, timeout=seconds, set_as_default=False, name="multiseg")
        except (OSError, ValueError) as error:
            raise ClusterError(f"{at}: no scheduler answers there ({error}); {mend}") from error

    def _begin(self, seconds: float) -> Offers:
        """Have the workers announce themselves, and listen; what the workers offer."""
        client = self.client
        try:
            client.wait_for_workers(1, timeout=seconds)
        except TimeoutError as error:
            raise ClusterError(
                f"{client.scheduler.address}: has no worker; start some with `dask worker {client.scheduler.address}`, where "
                "multiseg and its backends are installed"
            ) from error
        offers = {}
        for address, said in client.run(offer.look, on_error="return").items():
            offers[address] = {"problem": _problem(said), **(said if isinstance(said, dict) else {})}
        if all(each["problem"] for each in offers.values()):
            reasons = "\n".join(f"  {address}: {each['problem']}" for address, each in offers.items())
            raise ClusterError(f"{client.scheduler.address}: none of its workers can train:\n{reasons}")
        with suppress(ImportError):  # of a worker without multiseg, which announces nothing; the others have
            client.register_plugin(offer.Announcing())
        client.subscribe_topic(self._topic, self._hear)
        return offers

    def _hear(self, event: tuple[float, dict[str, Any]]) -> None:
        said = event[1]
        if said["job"] in self._events:
            self._events[said["job"]].put(said)


def _problem(said: Any) -> str | None:
    """Why a worker is of no use to us."""
    if isinstance(said, ImportError):
        return f"has no multiseg ({said}); install it there: pip install 'multiseg[cluster]'"
    if isinstance(said, Exception):
        return f"{type(said).__name__}: {said}"
    if said["multiseg"] != multiseg.__version__:
        return f"has multiseg {said['multiseg']}, this is {multiseg.__version__}; install the same on both"
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
        return f"has {said['cores']} cores, the job wants threads={job.threads}"
    if job.device == "cuda" and not said["gpus"]:
        return "has no GPU that a backend sees"
    return None
