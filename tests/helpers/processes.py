"""Looking after processes that a test starts."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """Process ids of the workers that ``pid`` started, the newest last."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended by now
            found += map(int, (task / "children").read_text().split())
    return sorted((child for child in found if "boot.py" in Path(f"/proc/{child}/cmdline").read_text()), key=_started)


def _started(pid: int) -> int:
    """When a process began, in clock ticks since the machine did: field 22 of proc(5)'s stat."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def gone(pid: int) -> bool:
    """Whether a process ends within 20 seconds."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False
