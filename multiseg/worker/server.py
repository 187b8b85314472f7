"""The worker's side: loads a backend's module, builds its network, and answers calls until the program is gone."""

from __future__ import annotations

import importlib
import os
import platform
import queue
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from multiseg import errors
from multiseg.network import Network, NetworkSpec, description
from multiseg.worker import protocol


class Server:
    """Answers ``open`` (import the framework), ``load`` (build a network) and the methods of :class:`Network`."""

    def __init__(self) -> None:
        self.module: ModuleType | None = None
        self.network: Network | None = None

    def open(self, module: str) -> dict[str, Any]:
        """Import the backend's worker-side module and ask it about its framework."""
        try:
            self.module = importlib.import_module(module)
            found: dict[str, Any] = self.module.probe()
        except (ImportError, OSError) as error:  # OSError: a shared library that will not load
            raise errors.BackendUnavailable(f"{type(error).__name__}: {error}") from error
        return {"python": platform.python_version(), "executable": sys.executable, **found}

    def load(self, spec: dict[str, Any], module: str | None = None) -> dict[str, Any]:
        """Build the network, ``module``'s where one is named, and describe it."""
        assert self.module is not None
        source = importlib.import_module(module) if module else self.module
        settings = NetworkSpec.from_json(spec)
        network: Network = source.Network(settings)
        self.network = network
        return description(network, settings)

    def read(self, module: str, function: str, arguments: dict[str, Any]) -> Any:
        """What a backend's reader says of a file, or its writer of one that it writes; see multiseg.model_files."""
        return getattr(importlib.import_module(module), function)(**arguments)

    def memory(self) -> float:
        """Peak resident memory of this process in MiB; not getrusage's, which counts the program's at the fork too."""
        with open("/proc/self/status") as status:  # noqa: PTH123
            peak = next(line for line in status if line.startswith("VmHWM:"))
        return int(peak.split()[1]) / 1024

    def method(self, name: str) -> Callable[..., Any]:
        """What answers a call of this name."""
        own: dict[str, Callable[..., Any]] = {
            "open": self.open,
            "load": self.load,
            "read": self.read,
            "memory": self.memory,
        }
        return own.get(name) or getattr(self.network, name)


def serve(connection_fd: int, lifeline_fd: int, scratch: str) -> None:
    """Answer calls one after the other; return on ``close`` or when the program that started this worker is gone.

    ``scratch`` is the worker's folder for temporary files, which the program removes, or the worker where it is gone.
    """
    # both are the program's to handle, which asks for a snapshot first; they may go to the whole group of processes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lifeline = threading.Thread(target=_end_with_parent, args=(lifeline_fd, scratch), daemon=True)
    lifeline.start()
    connection = Connection(connection_fd)
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # reads ahead: the next batch arrives while this one is computed, and neither side waits for the other to read
    threading.Thread(target=_read, args=(connection, calls), daemon=True).start()
    server = Server()
    while (call := calls.get()) is not None:
        if call["call"] == "close":
            if server.network is not None:
                server.network.close()
            shutil.rmtree(scratch, ignore_errors=True)  # the program may be killed before it does
            os._exit(0)  # frameworks' own ends at exit take long, or crash
        try:
            answer = {"value": server.method(call["call"])(**call["arguments"])}
        except Exception as error:
            traceback.print_exc()  # for the log
            answer = {"error": type(error).__name__, "message": getattr(error, "template", str(error))}
        answer["number"] = call["number"]
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            protocol.send(connection, answer)
        except OSError:
            break
    lifeline.join()  # the program is gone: that thread removes the temporary files and ends the process


def _read(connection: Connection, calls: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            calls.put(protocol.receive(connection))
    except (EOFError, OSError):
        calls.put(None)


def _end_with_parent(lifeline_fd: int, scratch: str) -> None:
    os.read(lifeline_fd, 1)  # nothing is ever written: this returns when the other end is closed, by whatever death
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)
