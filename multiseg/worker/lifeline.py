"""Have the kernel continue a stopped process when the program that started it ends."""

from __future__ import annotations

import fcntl
import os
import signal


def continue_at_end(descriptor: int) -> None:
    """Continue this process, if it is stopped (SIGSTOP), when the program closes the other end of a pipe or socket (Linux).

    It then finds the end of the file and ends as well. PR_SET_PDEATHSIG would send its signal as soon as the thread ends that
    started this process.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGCONT)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)
