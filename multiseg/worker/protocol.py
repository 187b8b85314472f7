"""Messages between a program and its backend workers: JSON, with arrays as raw bytes behind it. Nothing is pickled.

One message is a frame of JSON in which every array is replaced by its dtype and shape, followed by the frames of each array: of
FRAME bytes, the last one of the rest. Frames are those of multiprocessing's Connection.send_bytes, which copies each of them when
it is received; an array in one frame would need twice its memory.
"""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

ARRAY = "__array__"
FRAME = 1 << 24  # bytes


def send(connection: Connection, message: Any) -> None:
    """Send plain data (dict, list, tuple, str, numbers, bool, None) with numpy arrays anywhere in it."""
    arrays: list[np.ndarray[Any, Any]] = []
    connection.send_bytes(json.dumps(_without_arrays(message, arrays)).encode())
    for array in arrays:
        content = array.reshape(-1).view(np.uint8)
        for start in range(0, array.nbytes, FRAME):
            connection.send_bytes(content[start : start + FRAME].data)


def receive(connection: Connection) -> Any:
    """Receive a message of :func:`send`; tuples arrive as lists. Raises EOFError or OSError if the other process has ended."""
    return _with_arrays(json.loads(connection.recv_bytes()), connection)


# functions of the module: a recursive closure is a reference cycle, which keeps the arrays alive until the next collection


def _without_arrays(value: Any, arrays: list[np.ndarray[Any, Any]]) -> Any:
    """Return the value with dtype and shape in place of each array, and append the arrays to ``arrays``."""
    if isinstance(value, np.ndarray):
        arrays.append(np.ascontiguousarray(value))
        return {ARRAY: [value.dtype.str, list(value.shape)]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _without_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(item, arrays) for item in value]
    return value


def _with_arrays(value: Any, connection: Connection) -> Any:
    """Return the value with each array, received in the order of their places."""
    if isinstance(value, dict):
        if ARRAY in value:
            dtype, shape = value[ARRAY]
            array = np.empty(shape, np.dtype(dtype))
            content = array.reshape(-1).view(np.uint8)
            for start in range(0, array.nbytes, FRAME):
                connection.recv_bytes_into(content[start : start + FRAME])
            return array
        return {key: _with_arrays(item, connection) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, connection) for item in value]
    return value
