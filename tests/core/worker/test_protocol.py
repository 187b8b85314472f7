"""Messages between a program and its workers: plain data and arrays, never pickled."""

from __future__ import annotations

import json
import os
import socket
import threading
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

from multiseg.errors import WorkerError
from multiseg.worker import protocol


def test_messages_carry_plain_data_and_arrays() -> None:
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    draw = np.random.default_rng(0)
    message = {
        "call": "x",
        "n": [1, 2.5, None, True, "é"],
        "arrays": {"big": draw.standard_normal((64, 3, 50, 50)).astype("<f4"), "empty": np.zeros((0, 3), np.uint8)},
        "turned": draw.integers(0, 9, (3, 4, 5)).T,
        "scalar": np.float32(1.5),
        "point": np.array(7, np.int64),
    }
    sender = threading.Thread(target=protocol.send, args=(ours, message))
    sender.start()
    back = protocol.receive(theirs)
    sender.join()
    assert back["n"] == message["n"] and back["scalar"] == 1.5
    for one, other in ((back["arrays"]["big"], message["arrays"]["big"]), (back["turned"], message["turned"]),
                       (back["arrays"]["empty"], message["arrays"]["empty"]), (back["point"], message["point"])):  # fmt: skip
        assert one.dtype == other.dtype and np.array_equal(one, other)
    ours.close()
    with pytest.raises(EOFError):
        protocol.receive(theirs)


@pytest.mark.parametrize(
    "message",
    [
        [], {}, {"number": 4, "value": 1}, {"number": 3}, {"number": 3, "error": "x"}, {"number": True, "value": 1},
        {"number": 3, "value": {"__array__": ["O", [1]]}}, {"number": 3, "value": {"__array__": ["<f4", [-1]]}},
        {"number": 3, "value": {"__array__": ["<f4", [1 << 40, 1 << 20]]}}, {"number": 3, "value": {"__array__": 5}},
        {"number": 3, "value": {"__array__": ["i4,(09)f8", [1]]}},  # a SyntaxError of numpy
    ],
)  # fmt: skip
def test_what_is_no_answer_is_a_typed_error(message: Any) -> None:
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    ours.send_bytes(json.dumps(message).encode())
    with pytest.raises(WorkerError, match=r"not (a message|an answer) of multiseg"):
        protocol.receive_answer(theirs, {3: "evaluate"})


@pytest.mark.parametrize("stray", [b"x", bytes(4096)])
@pytest.mark.parametrize("before", [True, False])
def test_bytes_among_arrays_are_a_typed_error(stray: bytes, before: bool) -> None:
    """A library that writes to the connection must not change the values of an array."""
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    array = np.arange(1, 7, dtype="<f4")
    with ours, theirs:
        message = {"number": 3, "value": {"__array__": [array.dtype.str, list(array.shape)]}}
        ours.send_bytes(json.dumps(message).encode())
        parts = (stray, array.tobytes()) if before else (array.tobytes(), stray)
        for part in (*parts, protocol.END):
            os.write(ours.fileno(), part)
        with pytest.raises(WorkerError, match="not a message of multiseg"):
            protocol.receive_answer(theirs, {3: "evaluate"})


def test_nothing_is_unpickled() -> None:
    import pickle

    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    ours.send_bytes(pickle.dumps({"call": "x"}))
    with pytest.raises(WorkerError, match="not a message of multiseg"):
        protocol.receive(theirs)
