"""Lock open files against other processes; a lock ends when its descriptor is closed."""

from __future__ import annotations

import fcntl
from typing import Literal

Lock = Literal["acquired", "held", "unsupported"]
"""Whether this process has a lock now, another one holds it, or the file system has no locks."""


def try_lock(descriptor: int) -> Lock:
    """Lock an open file or folder if no other process holds its lock, without waiting.

    File systems without locks, such as Lustre as it is often mounted, raise various errors (ENOLCK, ENOSYS, ENOTSUP, EINVAL).
    Nobody should be unable to work there: callers take "unsupported" as "acquired", unless they remove what others own.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return "unsupported"
    return "acquired"
