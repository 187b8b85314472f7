"""Write to and read from files in memory that processes share. A call of the system moves at most 2 GiB."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def write(file: int, content: bytes | Array, position: int) -> int:
    """Write bytes, or those of an array, from ``position`` on, and return the position after them."""
    array = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else np.ascontiguousarray(content)
    remaining = array.reshape(-1).view(np.uint8).data
    while remaining:
        written = os.pwrite(file, remaining, position)
        remaining, position = remaining[written:], position + written
    return position


def fill(file: int, array: Array, position: int) -> int:
    """Fill an array from ``position`` on, and return the position after it. Raise EOFError if the file has fewer bytes."""
    remaining: Any = array.reshape(-1).view(np.uint8).data
    while remaining:
        read = os.preadv(file, [remaining], position)
        if not read:
            raise EOFError
        remaining, position = remaining[read:], position + read
    return position


def store(file: int, value: Any, position: int) -> int:
    """Write a value from ``position`` on, pickled, and return its number of bytes."""
    return write(file, pickle.dumps(value), position) - position


def load(file: int, position: int, length: int) -> Any:
    """Return the value that :func:`store` wrote. Raise EOFError if the file has fewer bytes."""
    content = np.empty(length, np.uint8)
    fill(file, content, position)
    return pickle.loads(content.data)
