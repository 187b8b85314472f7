"""Helper processes that answer requests about images, with memory shared for what they return."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Protocol

from multiseg.errors import DatasetError
from multiseg.worker.lifeline import continue_at_end

LANES_PER_HELPER = 2

Answering = Callable[[Any, int], Any]  # of a request and the descriptor of its lane's memory; what it returns is sent


class Task(Protocol):
    """What a helper process does; it is pickled."""

    def begin(self) -> Answering:
        """Return the function that answers requests; called once, in the helper."""


class Lane:
    """A channel to one helper: a pipe for requests and answers, and memory shared as a file for what is large.

    Records sent through the pipe would be copied five times.
    """

    def __init__(self, died: str) -> None:
        pipe, helper_end = Pipe()
        self.pipe: Any = pipe
        self.helper_end: Any = helper_end
        self.memory = os.memfd_create("multiseg-images")
        self._release = weakref.finalize(self, os.close, self.memory)
        self._died = died

    def send(self, request: Any) -> None:
        """Send the helper a request. Raise DatasetError if it has died."""
        try:
            self.pipe.send(request)
        except OSError as error:
            raise DatasetError(self._died) from error

    def receive(self) -> Any:
        """Return the answer, which may be an error. Raise DatasetError if the helper has died."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError) as error:
            raise DatasetError(self._died) from error

    def close(self) -> None:
        """Release the pipe and the memory, as when the lane is no longer referenced."""
        self.pipe.close()
        self._release()


class Helper:
    """A process for a task. Its lanes let it start on the next request without waiting for this process.

    It is a new interpreter, not a fork, because threads and loaded frameworks do not survive a fork; and it is not
    started by multiprocessing, which would run the user's script a second time. ``died`` is the message if it ends unexpectedly;
    ``files`` are descriptors that it inherits.
    """

    def __init__(self, task: Task, died: str, files: Sequence[int] = ()) -> None:
        self.lanes = [Lane(died) for _ in range(LANES_PER_HELPER)]
        descriptors = [(lane.helper_end.fileno(), lane.memory) for lane in self.lanes]
        # The child inherits the signal mask. Signals to the whole process group concern the program, which then ends its helpers.
        previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import main; main({descriptors})"],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
                pass_fds=[*chain(*descriptors), *files],
                stdin=subprocess.DEVNULL,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
        for lane in self.lanes:
            lane.helper_end.close()
        with suppress(OSError):  # it may have ended already
            self.lanes[0].pipe.send(task)

    def has_started(self) -> bool:
        """Wait until the process is ready; return False if it ended before."""
        try:
            self.lanes[0].pipe.recv()
        except (EOFError, OSError):
            return False
        return True

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process and release its lanes."""
        self.end()
        for lane in self.lanes:
            lane.close()


def main(descriptors: list[tuple[int, int]]) -> None:
    """Run a helper process: answer the requests until the pipes close."""
    lanes: dict[Any, int] = {Connection(pipe): memory for pipe, memory in descriptors}
    for pipe in lanes:
        continue_at_end(pipe.fileno())
    try:
        first = next(iter(lanes))
        answer = first.recv().begin()
        first.send("ready")
        while True:
            ready: list[Any] = wait(list(lanes))
            for pipe in ready:
                pipe.send(answer(pipe.recv(), lanes[pipe]))
    except (EOFError, OSError):  # the parent process has ended
        return
