"""The processor of this machine, as Linux describes it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import takewhile
from pathlib import Path


@lru_cache(1)
def processor() -> Mapping[str, str]:
    """Return what /proc/cpuinfo states of the first core, as "vendor_id", "model name" and "flags"; empty without that file."""
    try:
        with Path("/proc/cpuinfo").open() as file:
            fields = [line.partition(":") for line in takewhile(str.strip, file)]
    except OSError:
        return {}
    return {name.strip(): value.strip() for name, _, value in fields}


def is_intel() -> bool:
    """Return whether the processor is Intel's, for which some libraries have kernels of their own."""
    return processor().get("vendor_id") == "GenuineIntel"
