"""A real Dask cluster for tests: scheduler and workers are processes of their own, by Dask's own commands."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from distributed import Client
from distributed.security import Security


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class DaskCluster:
    """On loopback, unless ``host`` says otherwise. ``options`` are the commands' own, e.g. for TLS."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        protocol: str = "tcp",
        options: Sequence[str] = (),
        security: Security | None = None,
    ) -> None:
        self._folder, self._options, self._host = folder, list(options), host
        # what the frameworks would leave in the workers' output
        self._environment = {**os.environ, **(environment or {})}
        self.security = security
        self.port = free_port()
        self.address = f"{protocol}://{host}:{self.port}"
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.start_scheduler()

    def start_scheduler(self) -> None:
        """Also again, at the same address."""
        host = self.address.rpartition(":")[0]
        self.scheduler = self._start("scheduler", ["scheduler", "--host", host, "--port", str(self.port)])

    def add_worker(
        self,
        name: str,
        cores: int = 1,
        within: Sequence[str] = (),
        host: str | None = None,
        environment: Mapping[str, str] | None = None,
        nanny: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """Start a worker, as the command ``within`` starts what follows it, with variables of its own.

        A ``nanny`` starts the worker, and again where it ends.
        """
        arguments = [
            "worker", self.address, "--host", host or self._host, "--nthreads", str(cores),
            "--nanny" if nanny else "--no-nanny", "--name", name, "--local-directory", str(self._folder / name), *options,
        ]  # fmt: skip
        self.workers[name] = self._start(name, arguments, within, environment)

    def wait(self, count: int) -> None:
        """Until so many workers are there."""
        with self.client() as client:
            if count:
                client.wait_for_workers(count, timeout=60)

    def client(self) -> Client:
        """A client of its own."""
        return Client(self.address, security=self.security, set_as_default=False, timeout=30)

    def names(self) -> dict[str, str]:
        """The workers' names by their addresses."""
        with self.client() as client:
            return {at: str(each["name"]) for at, each in client.scheduler_info(n_workers=-1)["workers"].items()}

    def kill(self, name: str) -> None:
        """SIGKILL for a worker, or the scheduler."""
        process = self.scheduler if name == "scheduler" else self.workers.pop(name)
        process.kill()
        process.wait()

    def said(self, name: str) -> str:
        """What a worker, or the scheduler, has printed."""
        return (self._folder / f"{name}.log").read_text()

    def close(self) -> None:
        """End all of them."""
        for process in (*self.workers.values(), self.scheduler):
            process.kill()  # Dask takes its time to end in good order
            process.wait()

    def _start(
        self,
        name: str,
        arguments: Sequence[str],
        within: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        with (self._folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                # of the dashboard's web server Dask says nothing unless asked: it listens everywhere
                [*within, sys.executable, "-m", "dask", *arguments, "--dashboard-address", "127.0.0.1:0", *self._options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**self._environment, **(environment or {})},
                cwd=self._folder,  # which Python imports from
            )  # fmt: skip
