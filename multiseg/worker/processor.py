"""The processor of this machine, as Linux describes it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import takewhile

from multiseg.files import read_bytes

MOST_BYTES = 1 << 14  # of the first core; the kernel describes each in 1 to 3 KB


@lru_cache(1)
def processor() -> Mapping[str, str]:
    """Return what /proc/cpuinfo states of the first core, as "vendor_id", "model name" and "flags"; empty without that file."""
    try:
        lines = read_bytes("/proc/cpuinfo", MOST_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return {}
    fields = [line.partition(":") for line in takewhile(str.strip, lines)]
    return {name.strip(): value.strip() for name, _, value in fields}


def is_intel() -> bool:
    """Return whether the processor is Intel's, for which some libraries have kernels of their own."""
    return processor().get("vendor_id") == "GenuineIntel"
