"""Neutral weights as safetensors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import multiseg
from multiseg.errors import ModelError
from multiseg.model_files.reading import read_weights


def write(path: Path, name: str, array: np.ndarray) -> Path:
    """A safetensors file of one float32 tensor, as the format's description has it."""
    header = json.dumps(
        {name: {"dtype": "F32", "shape": list(array.shape), "data_offsets": [0, array.nbytes]}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + array.astype("<f4").tobytes())
    return path


def test_weights_come_back_by_name(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = read_weights(write(tmp_path / "any.name", "ip.weight", array))
    assert list(found) == ["ip.weight"]
    np.testing.assert_array_equal(found["ip.weight"], array)


def test_a_damaged_file_and_one_that_holds_no_network_are_one_error(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", "a.weight", np.zeros(3, np.float32))
    with pytest.raises(
        ModelError, match=r"w\.safetensors: is a safetensors file, which contains weights; expected is: Caffe prototxt"
    ):
        multiseg.describe(path)
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ModelError, match=r"w\.safetensors: cannot be read as safetensors"):
        read_weights(path)
