"""The program's side of a backend worker: starts it, calls it, and turns its death into a clear error."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from multiseg import errors
from multiseg.backend import Backend, package_folder
from multiseg.worker import boot, protocol

TAIL_LINES = 15
CLOSE_SECONDS = 10
# How a worker gets its memory, from mallopt(3) and glibc's manual on tunables; what is set in the environment counts instead.
# glibc's malloc returns large arrays to the system when they are freed, and each page of the next one is a fault: with tens of
# megabytes of gradients in every step that takes longer than the arithmetic. A worker keeps what it has had; and it asks for huge
# pages, as weights of that size have more small ones than a processor finds its way to quickly.
MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


class Worker:
    """A backend's process. ``call`` asks and waits; ``submit`` and ``result`` let calls run while the program goes on.

    ``log`` receives what the process prints; without it a temporary file does. Raises BackendUnavailable where the
    framework cannot be loaded, WorkerError where the process cannot be started or dies.
    """

    def __init__(self, backend: Backend, threads: int = 0, log: Path | None = None) -> None:
        top_level = ["multiseg", backend.module.partition(".")[0], backend.default_model.partition(":")[0]]
        packages = {name: str(package_folder(name)) for name in dict.fromkeys(top_level)}
        python = backend.python
        self.backend = backend
        self._pending: deque[str] = deque()
        self._closed = False
        self._log_path = log
        self._log = open(log, "ab") if log else tempfile.TemporaryFile()  # noqa: SIM115, PTH123 - closed in close
        self._log_start = self._log.seek(0, os.SEEK_END)
        # the worker's temporary files: gone with it, however it ends
        self._scratch = tempfile.TemporaryDirectory(prefix="multiseg-", ignore_cleanup_errors=True)
        ours, theirs = socket.socketpair()
        lifeline_theirs, self._lifeline = os.pipe()
        fds = (theirs.fileno(), lifeline_theirs)
        command = [python, "-u", boot.__file__, *map(str, fds), self._scratch.name, json.dumps(packages)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=fds,
                env=environment(backend, threads) | {"TMPDIR": self._scratch.name},
            )
        except OSError as error:
            os.close(self._lifeline)
            ours.close()
            self._log.close()
            raise errors.WorkerError(f"{backend.title}: {python} cannot be run: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(lifeline_theirs)
        self._connection = Connection(ours.detach())
        try:
            self.found: dict[str, Any] = self.call("open", module=backend.module)
        except (errors.BackendUnavailable, errors.WorkerError) as error:
            self.close()
            raise errors.BackendUnavailable(unavailable(backend, str(error))) from error
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether the process has ended, by :meth:`close` or by itself."""
        return self._closed

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def submit(self, method: str, **arguments: Any) -> None:
        """Ask without waiting; answers come from :meth:`result` in the order of asking."""
        if self._closed:
            raise errors.WorkerError(f"{self.backend.title}: the worker is closed")
        try:
            protocol.send(self._connection, {"call": method, "arguments": arguments})
        except OSError as error:
            raise self._death(method) from error
        self._pending.append(method)

    def result(self) -> Any:
        """The answer to the oldest call not yet answered. Raises what the call raised, or WorkerError."""
        method = self._pending.popleft()
        try:
            answer = protocol.receive(self._connection)
        except (EOFError, OSError) as error:
            raise self._death(method) from error
        if "error" not in answer:
            return answer["value"]
        kind = getattr(errors, answer["error"], None)
        if kind is not None and issubclass(kind, errors.MultisegError):
            raise kind(answer["message"])
        raise errors.WorkerError(
            f"{self.backend.title}: {method} failed: {answer['error']}: {answer['message']}{self._where(method)}"
        )

    def _where(self, method: str) -> str:
        """Where to read more; a log goes with its run folder where nothing was trained yet."""
        kept = self._log_path and method not in ("open", "load")
        return f"; more is in {self._log_path}" if kept else ""

    def drain(self) -> None:
        """Wait for all answers that are still to come, and forget them."""
        while self._pending:
            self.result()

    def call(self, method: str, **arguments: Any) -> Any:
        """Ask and wait for the answer."""
        self.submit(method, **arguments)
        return self.result()

    def close(self) -> None:
        """End the process: politely, then not. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        if not self._pending:  # idle: let it end by itself
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                protocol.send(self._connection, {"call": "close", "arguments": {}})
                self._process.wait(CLOSE_SECONDS)
        self._connection.close()
        os.close(self._lifeline)
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        self._scratch.cleanup()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "found"):
            self.close()

    def _death(self, method: str) -> errors.WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS)
        tail = self._tail()
        self.close()
        code = self._process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        said = "\n".join(f"  | {line}" for line in tail) or "  | (nothing)"
        return errors.WorkerError(
            f"{self.backend.title}: the worker process died during {method} ({how}){self._where(method)}. "
            f"The last lines it printed:\n{said}"
        )

    def _tail(self) -> list[str]:
        if self._log_path:
            with self._log_path.open("rb") as log:
                log.seek(self._log_start)
                text = log.read()
        else:
            self._log.seek(self._log_start)
            text = self._log.read()
        return text.decode(errors="replace").splitlines()[-TAIL_LINES:]


def unavailable(backend: Backend, reason: str) -> str:
    """The message for a framework that cannot be loaded: backend, reason, and the mend."""
    return (
        f"backend {backend.name!r} is not available: {backend.python} cannot load {backend.framework} ({reason}); "
        f"install it with `{backend.install}`, or name an interpreter that has it in {backend.python_variable}"
    )


def environment(backend: Backend, threads: int) -> dict[str, str]:
    """The variables that a worker starts with; 0 threads leave their number to the libraries."""
    found = {**MEMORY, **os.environ, **backend.environment, "PYTHONUNBUFFERED": "1"}
    if threads:  # the BLAS and OpenMP libraries read these when they are loaded
        found |= dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], str(threads))
    return found
