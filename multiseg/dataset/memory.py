"""The memory that programs can still use on this machine, or in this container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from multiseg.files import read_text

_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def machine_memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_memory() -> int:
    """Return the bytes that programs can still use, on this machine and in their control groups; 0 if it is unknown."""
    amounts = []
    with suppress(OSError, ValueError, KeyError):  # not on Linux
        amounts.append(1024 * _numbers("/proc/meminfo")["MemAvailable:"])
    for folder, limit, used, prefix in _groups():
        with suppress(OSError, ValueError, KeyError):  # "max" is no limit
            files = _numbers(folder / "memory.stat")  # the page cache counts as used, and is given up when it is needed
            cached = files[f"{prefix}inactive_file"] + files[f"{prefix}active_file"]
            amounts.append(int(read_text(folder / limit)) - int(read_text(folder / used)) + cached)
    return max(0, min(amounts, default=0))


def _groups() -> Iterator[tuple[Path, str, str, str]]:
    """Yield the folder of each control group of this process that may limit memory, and the names of its files and values.

    Of version 2 and version 1 (the kernel's documentation: admin-guide/cgroup-v2, admin-guide/cgroup-v1/memory). A container may
    see its group as the root, whatever /proc says.
    """
    with suppress(OSError, ValueError):
        for line in read_text(_OWN_GROUPS).splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                root, names = _GROUPS, ("memory.max", "memory.current", "")
            elif "memory" in controllers.split(","):
                root, names = _GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            else:
                continue
            group = root / path.strip("/")
            yield root, *names
            while group != root:
                yield group, *names
                group = group.parent


def _numbers(path: str | Path) -> dict[str, int]:
    """Return the numbers in a file of lines with a name and a number."""
    return {line.split()[0]: int(line.split()[1]) for line in read_text(path).splitlines() if len(line.split()) > 1}
