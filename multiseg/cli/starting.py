"""What Ctrl-C does while the program starts and ends.

Imported first, because imports take most of the time of a start. For the same reason this module imports only what is built into
Python or already imported when a program begins.
"""

import _signal  # type: ignore[import-not-found]  # the built-in part of `signal`, which imports much
import atexit
import os
import sys

INTERRUPTED = 128 + _signal.SIGINT  # the exit status that a shell reports for a program ended by Ctrl-C
LINE = "multiseg: interrupted"


def end(*_: object) -> None:
    """End the program at once, with one line. A handler of signals for when there is nothing to remove."""
    os.write(2, f"{LINE}\n".encode())
    os._exit(INTERRUPTED)


def is_program() -> bool:
    """Return whether this process runs the command, and is not a program that imports it."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""  # noqa: PTH119 - pathlib takes long to import
    if name in ("-m", "__main__.py") and "-m" in sys.orig_argv[:-1]:
        return sys.orig_argv[sys.orig_argv.index("-m") + 1] in ("multiseg", "multiseg.cli")
    return name == "multiseg"


if is_program() and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, end)
    # the last thing that Python does before it removes its handlers: nothing is left to be interrupted
    atexit.register(_signal.signal, _signal.SIGINT, _signal.SIG_IGN)


class Interrupts:
    """Let Ctrl-C raise KeyboardInterrupt in the block; where Python would swallow that, it ends the program.

    Does nothing in a program that imports the command.
    """

    def __enter__(self) -> None:
        self._of_program = _signal.getsignal(_signal.SIGINT) is end
        if not self._of_program:
            return
        hook = sys.unraisablehook

        def unraisable(unraised: "sys.UnraisableHookArgs") -> None:
            if unraised.exc_type is KeyboardInterrupt:  # while an object was deleted
                end()
            hook(unraised)

        sys.unraisablehook = unraisable
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)

    def __exit__(self, *_: object) -> None:
        if self._of_program:
            _signal.signal(_signal.SIGINT, end)
