"""Messages between a program and its backend workers: JSON, with arrays as raw bytes behind it. Nothing is pickled.

One message is a frame of JSON (Connection.send_bytes of multiprocessing) in which every array is replaced by its dtype and shape.
If there are any, the bytes of the arrays follow, and END. They are read into the arrays without a copy; as frames they would be
copied three times.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from multiseg.errors import WorkerError

ARRAY = "__array__"
END = b"multiseg"  # after the arrays: what something else wrote among them has moved it
TYPE = re.compile(r"[<>|=][A-Za-z]\d{1,9}")  # as numpy.dtype.str


def send(connection: Connection, message: Any) -> None:
    """Send plain data (dict, list, tuple, str, numbers, bool, None) with numpy arrays anywhere in it."""
    arrays: list[np.ndarray[Any, Any]] = []
    connection.send_bytes(json.dumps(_without_arrays(message, arrays)).encode())
    for array in arrays:
        _write(connection, _bytes_of(array))
    if arrays:
        _write(connection, memoryview(END))


def receive(connection: Connection) -> Any:
    """Receive a message of :func:`send`; tuples arrive as lists.

    Raises EOFError or OSError if the other process has ended, WorkerError for anything that is not such a message, as a library
    that writes to the connection would cause, or that does not fit in memory.
    """
    try:
        arrays: list[np.ndarray[Any, Any]] = []
        message = _with_arrays(json.loads(connection.recv_bytes()), connection, arrays)
        if arrays:
            end = bytearray(len(END))
            _fill(connection, memoryview(end))
            if end != END:
                raise ValueError("its arrays do not end where they should")
        return message
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise WorkerError(
            f"received what is not a message of multiseg ({type(error).__name__}: {error})"[:200]
        ) from error
    except MemoryError as error:
        raise WorkerError("received a message for which there is not enough memory") from error


def receive_answer(connection: Connection, in_flight: Collection[int]) -> tuple[int, dict[str, Any]]:
    """Receive an answer: the number of its call, which is one of ``in_flight``, and its ``value``, or ``error`` and ``message``.

    Raises as :func:`receive` does.
    """
    answer = receive(connection)
    number = answer.get("number") if isinstance(answer, dict) else None
    is_error = (
        isinstance(answer, dict) and isinstance(answer.get("error"), str) and isinstance(answer.get("message"), str)
    )
    if type(number) is not int or number not in in_flight or not (is_error or "value" in answer):
        raise WorkerError("received what is not an answer of multiseg's worker")
    return number, answer


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


def _with_arrays(value: Any, connection: Connection, arrays: list[np.ndarray[Any, Any]]) -> Any:
    """Return the value with each array, received in the order of their places and appended to ``arrays``."""
    if isinstance(value, dict):
        if ARRAY in value:
            array = _empty(*value[ARRAY])
            _fill(connection, _bytes_of(array))
            arrays.append(array)
            return array
        return {key: _with_arrays(item, connection, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, connection, arrays) for item in value]
    return value


def _write(connection: Connection, content: memoryview) -> None:
    while content:
        content = content[os.write(connection.fileno(), content) :]


def _fill(connection: Connection, memory: memoryview) -> None:
    """Fill memory with what arrives. Raise EOFError if the other process has ended."""
    while memory:
        received = os.readv(connection.fileno(), [memory])
        if not received:
            raise EOFError
        memory = memory[received:]


def _bytes_of(array: np.ndarray[Any, Any]) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _empty(dtype: str, shape: list[int]) -> np.ndarray[Any, Any]:
    """Return an array for the content of a message. Raise ValueError for one that :func:`send` does not announce."""
    if not TYPE.fullmatch(str(dtype)):  # numpy also parses text such as "i4,(2,)f8", with errors of Python's grammar
        raise ValueError(f"an array of {dtype!r}")
    kind = np.dtype(str(dtype))
    if (
        kind.hasobject
        or not kind.itemsize
        or len(shape) > 32
        or any(type(size) is not int or size < 0 for size in shape)
    ):
        raise ValueError(f"an array of {kind} and the shape {shape}")
    if math.prod(shape) * kind.itemsize >= 1 << 62:
        raise ValueError(f"an array of the shape {shape}")
    return np.empty(shape, kind)
