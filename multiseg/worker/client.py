"""The program's side of a backend worker: start it, call it, and report its death as a clear error."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from multiseg import errors
from multiseg.backend import Backend, package_folder
from multiseg.files import open_own, tail
from multiseg.files.scratch import TemporaryFolder
from multiseg.worker import boot, protocol

TAIL_LINES = 15
CLOSE_SECONDS = 10
# Memory allocation of a worker, see mallopt(3) and glibc's manual on tunables; variables set by the user take precedence.
# glibc's malloc returns large arrays to the system when they are freed, so every page of the next array causes a page fault:
# with tens of megabytes of gradients per step this takes longer than the arithmetic. A worker therefore keeps freed memory, and
# it requests huge pages, because weights of that size have more small pages than the processor's TLB holds.
MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
# Bytes of a message that may be under way, up to net.core.wmem_max: a batch that is sent at once wakes the other side once.
BUFFER = 1 << 23


class Worker:
    """A backend's process.

    :meth:`call` sends a call and waits for its answer; :meth:`submit` and :meth:`result` keep several calls in flight. Every
    answer carries the number of its call, so an answer that nobody waits for any more is discarded, never given to another call.

    A worker may be used by several threads. It belongs to the process that started it: in a forked child it is closed, and the
    parent's worker is unaffected.

    ``threads`` is the number of threads of the framework's libraries, 0 for their default; ``log`` receives what the process
    prints, a temporary file if it is None.

    With ``wait`` the framework is loaded when the constructor returns; otherwise the first call, or :attr:`probed`, waits.

    Raises BackendUnavailable if the framework cannot be loaded, WorkerError if the process cannot be started or dies.
    """

    def __init__(self, backend: Backend, threads: int = 0, log: Path | None = None, wait: bool = True) -> None:
        top_level = ["multiseg", backend.module.partition(".")[0], backend.default_model.partition(":")[0]]
        packages = {name: str(package_folder(name)) for name in dict.fromkeys(top_level)}
        python = backend.python
        self.backend = backend
        self._closed = False
        self._sending, self._receiving = threading.Lock(), threading.RLock()
        self._numbers = itertools.count()
        self._in_flight: dict[int, str] = {}  # number -> method of the calls whose answers have not been received
        self._answers: dict[int, Any] = {}  # received while waiting for another one
        self._abandoned: set[int] = set()  # whose answers are discarded
        self._log_path = log
        self._log = open(open_own(log, "a"), "ab") if log else tempfile.TemporaryFile()  # noqa: SIM115, PTH123 - closed in close
        self._log_start = self._log.seek(0, os.SEEK_END)
        # the worker's temporary files, removed however the worker ends
        self._scratch = TemporaryFolder()
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        lifeline_theirs, self._lifeline = os.pipe()
        fds = (theirs.fileno(), lifeline_theirs)
        command = [python, "-u", boot.__file__, *map(str, fds), str(self._scratch.path), json.dumps(packages)]
        # inherited by the process: only the program handles these signals, also while the process starts
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=fds,
                env=environment(backend, threads) | {"TMPDIR": str(self._scratch.path)},
            )
        except BaseException as error:
            os.close(self._lifeline)  # a process that was started before an interrupt ends with this
            ours.close()
            self._log.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            if not isinstance(error, OSError):
                raise
            raise errors.WorkerError(f"{backend.title}: {python} cannot be run: {error.strerror}") from error
        finally:
            theirs.close()
            os.close(lifeline_theirs)
        self._connection = Connection(ours.detach())
        self._arrivals = select.poll()  # Connection.poll makes a selector each time, which costs more than the message
        self._arrivals.register(self._connection.fileno(), select.POLLIN)
        _workers.add(self)
        self._opening = threading.Lock()
        self._probed: dict[str, Any] | None = None
        with self._opens():
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)  # an interrupt that was held back is raised here
            self._opened = self._submit("open", {"module": backend.module})
        if wait:
            self._wait_until_open()

    @contextlib.contextmanager
    def _opens(self) -> Iterator[None]:
        """End the process if the block fails; what it says of the framework is BackendUnavailable."""
        try:
            yield
        except (errors.BackendUnavailable, errors.WorkerError) as error:
            self.close()
            raise errors.BackendUnavailable(unavailable(self.backend, str(error))) from error
        except BaseException:
            self.close()
            raise

    def _wait_until_open(self) -> dict[str, Any]:
        """Wait until the framework is loaded, and return what describes it. Raises BackendUnavailable."""
        with self._opening:
            if self._probed is None:
                with self._opens():
                    self._probed = self.result(self._opened)
            assert self._probed is not None
            return self._probed

    @property
    def probed(self) -> dict[str, Any]:
        """The versions of Python and the framework, and the device. Waits until the framework is loaded."""
        return self._wait_until_open()

    @property
    def closed(self) -> bool:
        """Whether the process has ended, by :meth:`close` or by itself."""
        return self._closed

    @property
    def idle(self) -> bool:
        """Whether the process is alive and has answered all calls."""
        return not self._closed and not self._in_flight and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def submit(self, method: str, **arguments: Any) -> int:
        """Send a call without waiting; return its number, for :meth:`result` or :meth:`abandon`."""
        self._wait_until_open()
        return self._submit(method, arguments)

    def _submit(self, method: str, arguments: dict[str, Any]) -> int:
        with self._sending:
            if self._closed:
                raise errors.WorkerError(f"{self.backend.title}: the worker is closed")
            number = next(self._numbers)
            self._in_flight[number] = method
            try:
                protocol.send(self._connection, {"call": method, "arguments": arguments, "number": number})
            except OSError as error:
                raise self._death(method) from error
            except BaseException:  # part of a message may have been sent: nothing can follow it
                self.close()
                raise
            return number

    def result(self, number: int) -> Any:
        """Wait for the answer to a call and return its value. Raises the error that the call raised, or WorkerError."""
        try:
            with self._receiving:
                while number not in self._answers:
                    self._receive(number)
                method, answer = self._answers.pop(number)
        except BaseException:
            self.abandon(number)
            raise
        if "error" not in answer:
            return answer["value"]
        kind = getattr(errors, answer["error"], None)
        if kind is not None and issubclass(kind, errors.MultisegError):
            raise kind(answer["message"])
        raise errors.WorkerError(
            f"{self.backend.title}: {method} failed: {answer['error']}: {answer['message']}{self._where(method)}"
        )

    def _receive(self, awaited: int) -> None:
        """Receive one answer and keep it, unless its call was abandoned."""
        if self._closed:
            raise errors.WorkerError(f"{self.backend.title}: the worker is closed")
        begun = False
        try:
            # an exception here, such as KeyboardInterrupt, does not interrupt a message
            self._arrivals.poll()
            begun = True
            number, answer = protocol.receive_answer(self._connection, self._in_flight)
            method = self._in_flight.pop(number)
            if number in self._abandoned:
                self._abandoned.remove(number)
            else:
                self._answers[number] = method, answer
            begun = False
        except (EOFError, OSError) as error:
            raise self._death(self._in_flight.get(awaited, "call")) from error
        except errors.WorkerError as error:
            raise errors.WorkerError(
                f"{self.backend.title}: {error.template}, during {self._in_flight.get(awaited, 'a call')}; its process is ended"
            ) from error
        finally:
            if begun and not self._closed:  # interrupted within a message: what follows cannot be understood
                self.close()

    def abandon(self, *numbers: int) -> None:
        """Discard the answers to these calls, received or still to come."""
        for number in numbers:
            self._answers.pop(number, None)
            if number in self._in_flight:
                self._abandoned.add(number)

    def drain(self) -> None:
        """Wait for all answers that are still to come, and discard them."""
        with self._receiving:
            self.abandon(*self._in_flight)
            while self._in_flight:
                self._receive(next(iter(self._in_flight)))

    def call(self, method: str, **arguments: Any) -> Any:
        """Send a call and wait for its answer."""
        return self.result(self.submit(method, **arguments))

    def close(self) -> None:
        """End the process, also a stopped one: by a message if it is idle, else by force. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        try:  # an interrupt does not leave the process behind
            if not self._in_flight:
                self._process.send_signal(signal.SIGCONT)
                with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                    protocol.send(self._connection, {"call": "close", "arguments": {}})
                    self._process.wait(CLOSE_SECONDS)
        finally:
            self._end()

    def _end(self) -> None:
        """End the process by force, after a moment in which it may remove its files, and release what belongs to it."""
        self._connection.close()
        os.close(self._lifeline)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()
            self._scratch.remove()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_opened"):
            self.close()

    def _where(self, method: str) -> str:
        """Name the log in which to read more; it stays in the run folder, also if nothing was trained yet."""
        kept = self._log_path and method != "open"
        return f"; more is in {self._log_path}" if kept else ""

    def _death(self, method: str) -> errors.WorkerError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS)
        last = tail(self._log.fileno(), TAIL_LINES, self._log_start)  # also if its name is gone
        self.close()
        code = self._process.returncode
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        printed = "\n".join(f"  | {line}" for line in last) or "  | (nothing)"
        return errors.WorkerError(
            f"{self.backend.title}: the worker process died during {method} ({how}){self._where(method)}. "
            f"The last lines it printed:\n{printed}"
        )

    def _forget(self) -> None:
        """Close this process's copies of the worker's files, in a forked child; the worker stays its parent's."""
        # another thread of the parent may have held the locks at the fork
        self._sending, self._receiving = threading.Lock(), threading.RLock()
        if self._closed:
            return
        self._closed = True
        self._connection.close()
        os.close(self._lifeline)
        self._log.close()
        self._process.returncode = 0  # it is no child of this process, which must not wait for it


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def _forget_workers() -> None:
    for worker in list(_workers):
        worker._forget()


os.register_at_fork(after_in_child=_forget_workers)


def unavailable(backend: Backend, reason: str) -> str:
    """Return the message for a framework that cannot be loaded: backend, reason, and how to fix it."""
    return (
        f"backend {backend.name!r} is not available: {backend.python} cannot load {backend.framework} ({reason}); "
        f"install it with `{backend.install}`, or name an interpreter that has it in {backend.python_variable}"
    )


def environment(backend: Backend, threads: int) -> dict[str, str]:
    """Return the environment variables of a worker; with 0 threads the libraries choose their number.

    Variables that the user has set count more than those that the backend declares.
    """
    variables = {**MEMORY, **backend.environment, **os.environ, "PYTHONUNBUFFERED": "1"}
    if threads:  # the BLAS and OpenMP libraries read these when they are loaded
        variables |= dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], str(threads))
    return variables
