"""Stop a training gracefully: Ctrl-C and SIGTERM request a stop, a second signal ends the program immediately."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """A request to stop, which a training checks after each step. ``signal`` is the signal that caused it, or None."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.signal: signal.Signals | None = None

    @property
    def asked(self) -> bool:
        """Whether a stop was requested."""
        return self._asked.is_set()

    def ask(self, by: signal.Signals | None = None) -> None:
        """Request a stop, because of the signal ``by`` if there is one."""
        self.signal = by
        self._asked.set()


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Make the first SIGINT or SIGTERM request ``stop``; a second one, and both after the block, have their usual effect.

    Does nothing outside the main thread, where Python cannot handle signals; signals that are ignored stay ignored.
    """
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop.asked:
            stop.ask(signal.Signals(number))
            return
        restore()
        os.kill(os.getpid(), number)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in SIGNALS}
        before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
        for number in before:
            signal.signal(number, handle)
    try:
        yield
    finally:
        restore()
