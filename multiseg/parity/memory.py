"""Keep freed memory for the next arrays of the same size: fresh pages for them cost a third of a step of the reference."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

# numbers of options of mallopt(3)
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
LARGEST_THRESHOLD = 4 << 20 << 3  # bytes; glibc raises its own threshold up to this while a program runs
DEFAULT_MMAP_MAX = 65536


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Let glibc keep the memory of freed arrays until the end, and return it to the system then.

    Without effect where the C library is another one, or the user has set its allocation in the environment.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if mallopt is None or trim is None or any(name.startswith(("MALLOC_", "GLIBC_")) for name in os.environ):
        yield
        return
    mallopt(MMAP_MAX, 0)
    mallopt(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(MMAP_MAX, DEFAULT_MMAP_MAX)
        mallopt(MMAP_THRESHOLD, LARGEST_THRESHOLD)
        mallopt(TRIM_THRESHOLD, 2 * LARGEST_THRESHOLD)
        trim(0)
