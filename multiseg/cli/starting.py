"""What Ctrl-C does while the program starts and ends. Imported first, because imports take most of the time of a start."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 128 + signal.SIGINT  # the exit status that a shell reports for a program ended by Ctrl-C
LINE = "multiseg: interrupted"


def end(*_: object) -> None:
    """End the program at once, with one line. A handler of signals for when there is nothing to remove."""
    os.write(2, f"{LINE}\n".encode())
    os._exit(INTERRUPTED)


def is_program() -> bool:
    """Return whether this process runs the command, and is not a program that imports it."""
    return bool(sys.argv) and os.path.basename(sys.argv[0]) in ("multiseg", "-m")  # noqa: PTH119 - pathlib takes long to import


if is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end)
    # the last thing that Python does before it removes its handlers: nothing is left to be interrupted
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)


@contextmanager
def interrupts() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt in the block; where Python would swallow that, it ends the program.

    Does nothing in a program that imports the command.
    """
    if signal.getsignal(signal.SIGINT) is not end:
        yield
        return
    hook = sys.unraisablehook

    def unraisable(unraised: sys.UnraisableHookArgs) -> None:
        if unraised.exc_type is KeyboardInterrupt:  # while an object was deleted
            end()
        hook(unraised)

    sys.unraisablehook = unraisable
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, end)
