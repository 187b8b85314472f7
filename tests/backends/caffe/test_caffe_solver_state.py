"""Damaged solver states of Caffe: refused before pycaffe reads them, which would end the process or write beyond an array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multiseg_caffe import solver_state
from multiseg_caffe.blobs import blob_of
from multiseg_caffe.proto import SolverState

from multiseg.errors import ModelError

SHAPES = [(2, 1, 3, 3), (2,)]


def state(*shapes: tuple[int, ...], weights: str = "w.caffemodel") -> Any:
    return SolverState(iter=3, learned_net=weights, history=[blob_of(np.ones(shape, np.float32)) for shape in shapes])


def short() -> Any:
    """A state whose second array has fewer numbers than its shape states."""
    damaged = state(*SHAPES)
    damaged.history[1].ClearField("data")
    damaged.history[1].data.extend([1.0])
    return damaged


@pytest.mark.parametrize(("content", "words"), [
    (b"\x0a\xff", "is damaged: "),
    (b"", "names the weights file '', not 'w.caffemodel'"),
    (state(*SHAPES, weights="/elsewhere.caffemodel").SerializeToString(), "names the weights file '/elsewhere.caffemodel'"),
    (state(*SHAPES, (2,)).SerializeToString(), "has 3 arrays for 2 parameters"),
    (state(SHAPES[0], (1,)).SerializeToString(), r"its array 1 has 1 numbers and the shape \[1\], and the parameter"),
    (short().SerializeToString(), r"its array 1 has 1 numbers and the shape \[2\]"),
])  # fmt: skip
def test_a_damaged_solver_state_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "network.solverstate"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"network.solverstate: {words}"):
        solver_state.check(path, "w.caffemodel", SHAPES)


@pytest.mark.parametrize("slots", [1, 2])
def test_a_whole_solver_state_is_accepted(slots: int, tmp_path: Path) -> None:
    path = tmp_path / "network.solverstate"
    path.write_bytes(state(*SHAPES * slots).SerializeToString())
    solver_state.check(path, "w.caffemodel", SHAPES)
