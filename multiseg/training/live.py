"""Write the current state of a training to its run folder, for those who watch it."""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from multiseg.errors import MultisegError
from multiseg.files import json_text, write_bytes
from multiseg.run.names import PROGRESS

SECONDS = 0.5  # between two writes
WINDOW = 10.0  # seconds over which the speed is averaged


class LiveProgress:
    """Writes .progress.json from the events of a training, at most once in SECONDS.

    A failure to write it does not affect the training. The file need not survive a power failure.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PROGRESS
        self._state: dict[str, Any] = {"host": platform.node(), "pid": os.getpid()}
        self._due = 0.0
        self._recent: deque[tuple[float, int]] = deque()  # time and iteration of steps

    def __call__(self, event: dict[str, Any]) -> None:
        """Process one event of multiseg.training."""
        kind = event["event"]
        if kind == "start":
            self._state |= {key: event[key] for key in ("iteration", "iterations", "epoch", "epochs", "batch_size")}
            self._write(ended=False)
        elif kind == "step":
            self._step(event)
        elif kind == "epoch":
            self._write()
            self._recent.clear()  # a validation lies between
        elif kind == "end":
            self._write(ended=True)

    def _step(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        self._recent.append((now, event["iteration"]))
        self._state |= {
            "iteration": event["iteration"],
            "epoch": event["epoch"],
            "loss": event["loss"],
            "learning_rate": event["rate"],
        }
        if now >= self._due:
            self._write()

    def _speed(self) -> float | None:
        """Return the images per second of the steps in the window; None for fewer than two."""
        while len(self._recent) > 2 and self._recent[0][0] < time.monotonic() - WINDOW:
            self._recent.popleft()
        if len(self._recent) < 2:
            return None
        (start, before), (end, after) = self._recent[0], self._recent[-1]
        return (after - before) * self._state["batch_size"] / (end - start) if end > start else None

    def _write(self, **state: Any) -> None:
        self._due = time.monotonic() + SECONDS
        self._state |= {"time": time.time(), "images_per_second": self._speed(), **state}
        with suppress(OSError, MultisegError):
            write_bytes(self._path, json_text(self._state, indent=None).encode(), durable=False, follow=False)
