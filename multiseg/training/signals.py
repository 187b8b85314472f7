"""Ending a training in good order: Ctrl-C and SIGTERM ask it to stop, a second one ends it at once."""

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
    """A wish to stop, which a training looks at after each step. ``signal`` is what asked for it, if one did."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self.signal: signal.Signals | None = None

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self._asked.is_set()

    def ask(self, by: signal.Signals | None = None) -> None:
        """Ask for it."""
        self.signal = by
        self._asked.set()


@contextmanager
def listening(stop: Stop) -> Iterator[None]:
    """Let SIGINT and SIGTERM ask ``stop``; the second one has its usual effect, as both have after the block.

    In any but the main thread, where Python handles no signals, nothing is changed; nor is a signal that is ignored.
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
