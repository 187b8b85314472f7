"""The worker process: load a backend's module, build its network, and answer calls until the program ends."""

from __future__ import annotations

import gc
import importlib
import math
import os
import platform
import queue
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from multiseg import errors
from multiseg.network import Network, NetworkSpec, description
from multiseg.worker import choice, helper_modules, protocol
from multiseg.worker.lifeline import continue_at_end
from multiseg.worker.prediction import Prediction

CHANGES = ("train_step", "train_steps", "set_weights", "restore")  # calls that change the weights of the network


class Server:
    """Answers ``open`` (import the framework), ``load`` (build a network) and the methods of :class:`Network`."""

    def __init__(self) -> None:
        self.module: ModuleType | None = None
        self.network: Network | None = None
        self.prediction: Prediction | None = None

    def open(self, module: str) -> dict[str, Any]:
        """Import the backend's worker-side module, and return information about its framework."""
        try:
            with _without_garbage_collection():
                self.module = importlib.import_module(module)
                framework: dict[str, Any] = self.module.probe()
        except (ImportError, OSError) as error:  # OSError: a shared library that cannot be loaded
            raise errors.BackendUnavailable(f"{type(error).__name__}: {error}") from error
        return {"python": platform.python_version(), "executable": sys.executable, **framework}

    def load(self, spec: dict[str, Any], module: str | None = None) -> dict[str, Any]:
        """Build the network, from ``module`` if specified, and return its description."""
        assert self.module is not None
        source = importlib.import_module(module) if module else self.module
        settings = NetworkSpec.from_json(spec)
        earlier = self.network
        network: Network = (earlier.successor(settings) if earlier and not module else None) or source.Network(settings)
        self.network, self.prediction = network, Prediction(network)
        chosen = choice.read(settings.model)
        described = description(network, replace(settings, model=str(chosen.file)))
        return {**described, "files": [*described.get("files", ()), *helper_modules.used(chosen)]}

    def read(self, module: str, function: str, arguments: dict[str, Any]) -> Any:
        """Call a function of a backend's reader or writer module, and return its result; see multiseg.model_files."""
        return getattr(importlib.import_module(module), function)(**arguments)

    def memory(self) -> float:
        """Return the peak resident memory of this process in MiB; getrusage would include the program's memory at the fork."""
        with open("/proc/self/status", "rb") as status:  # noqa: PTH123 - with the name of the process, which is any bytes
            peak = next(line for line in status if line.startswith(b"VmHWM:"))
        return int(peak.split()[1]) / 1024

    def train_steps(self, steps: list[dict[str, Any]]) -> list[float]:
        """Train steps one after the other, each with the arguments of :meth:`Network.train_step`, and return their losses.

        A loss that is not finite is the last: what follows it has no meaning, and may fail with an error that hides the loss.
        """
        assert self.network is not None
        losses: list[float] = []
        for step in steps:
            losses.append(self.network.train_step(**step))
            if not math.isfinite(losses[-1]):
                break
        return losses

    def method(self, name: str) -> Callable[..., Any]:
        """Return the function that answers a call of this name."""
        own: dict[str, Callable[..., Any]] = {
            "open": self.open,
            "load": self.load,
            "read": self.read,
            "memory": self.memory,
            "train_steps": self.train_steps,
        }
        if self.prediction is not None:
            own |= {"predict": self.prediction.predict, "evaluate": self.prediction.evaluate}
            if name in CHANGES:
                self.prediction.weights_changed()
        return own.get(name) or getattr(self.network, name)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Import without searches for unreferenced objects, and leave what is imported out of later ones: it stays in use."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def serve(connection_fd: int, lifeline_fd: int, scratch: str) -> None:
    """Answer calls one after the other, until ``close`` or until the program that started this worker ends.

    ``scratch`` is the worker's folder for temporary files; the program removes it, or the worker if the program has ended.
    """
    # signals may be sent to the whole process group, but only the program handles them: it writes a snapshot first
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    continue_at_end(lifeline_fd)
    threading.Thread(target=_end_with_parent, args=(lifeline_fd, scratch), daemon=True).start()
    connection = Connection(connection_fd)
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # read ahead: the next batch arrives while this one is computed, and neither side blocks on the other's reading
    threading.Thread(target=_read, args=(connection, calls), daemon=True).start()
    server = Server()
    while (call := calls.get()) is not None:
        if call["call"] == "close":
            if server.network is not None:
                server.network.close()
            _end(scratch, 0)  # the program may be killed before it removes the folder
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
    _end(scratch)  # the program has ended, or gave this process up


def _read(connection: Connection, calls: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            calls.put(protocol.receive(connection))
    except (EOFError, OSError, errors.WorkerError):
        calls.put(None)


def _end_with_parent(lifeline_fd: int, scratch: str) -> None:
    os.read(lifeline_fd, 1)  # nothing is ever written: this returns when the program ends, even if it is killed
    _end(scratch)


_ending = threading.Lock()


def _end(scratch: str, status: int = 1) -> None:
    """Remove the folder for temporary files and end, without exit handlers: those of frameworks are slow, or crash."""
    with _ending:  # the other thread may be removing the folder: it ends this process when that is done
        shutil.rmtree(scratch, ignore_errors=True)
        os._exit(status)
