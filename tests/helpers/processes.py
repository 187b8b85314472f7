"""Looking after processes that a test starts."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

# of a process or a thread that ends before a file of it is opened, or while it is read
ENDED = (FileNotFoundError, ProcessLookupError)


def children(pid: int) -> list[int]:
    """Process ids of the workers that ``pid`` started, the newest last."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(*ENDED):
            found += map(int, (task / "children").read_text().split())
    return sorted((child for child in found if "boot.py" in Path(f"/proc/{child}/cmdline").read_text()), key=_started)


def _started(pid: int) -> int:
    """When a process began, in clock ticks since the machine did: field 22 of proc(5)'s stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ENDED:
        return False


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether a process ends within these seconds."""
    end = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
