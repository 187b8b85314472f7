"""Layers that start at zero, of Caffe networks without fillers; described without Caffe."""

from pathlib import Path

import numpy as np
import pytest

import multiseg
from multiseg.topology import Topology
from multiseg.training import zero_start

NETWORK = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 1 dim: 8 dim: 8 }} }} }}
layer {{ name: "a" type: "Convolution" bottom: "data" top: "a" convolution_param {{ num_output: 2 kernel_size: 3 pad: 1 }} }}
layer {{ name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param {{ num_output: 2 kernel_size: 3 pad: 1 }} }}
layer {{ name: "c" type: "Convolution" bottom: "b" top: "c" convolution_param {{ num_output: 2 kernel_size: 3 pad: 1 }} }}
layer {{ name: "d" type: "Convolution" bottom: "a" top: "d" convolution_param {{ num_output: 2 kernel_size: 1 }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "c" bottom: "d" top: "sum" }}
"""


@pytest.fixture
def network(tmp_path: Path) -> Topology:
    (tmp_path / "net.prototxt").write_text(NETWORK.format())
    return multiseg.describe(tmp_path / "net.prototxt")


@pytest.mark.parametrize(
    ("zero", "expected"),
    [
        ("", ""),
        ("abcd", "abcd"),
        ("b", "b"),
        ("c", ""),  # the last layer alone learns
        ("cd", ""),
        ("bd", "bd"),
        ("ac", "ac"),
    ],
)
def test_layers_at_zero_are_named_unless_they_are_the_last(network: Topology, zero: str, expected: str) -> None:
    weights = {}
    for layer in "abcd":
        weights[f"{layer}.weight"] = np.full((2, 2, 3, 3), 0.0 if layer in zero else 0.5, np.float32)
        weights[f"{layer}.bias"] = np.zeros(2, np.float32)
    assert zero_start.layers_at_zero(weights, list(weights), lambda: network) == list(expected)


def test_layers_that_are_not_trained_do_not_count(network: Topology) -> None:
    weights = {f"{layer}.weight": np.zeros((2, 2, 3, 3), np.float32) for layer in "abcd"}
    assert zero_start.layers_at_zero(weights, ["a.weight", "b.weight"], lambda: network) == ["a", "b"]
    assert zero_start.layers_at_zero(weights, [], lambda: network) == []


def test_the_warning_names_layers_and_fixes() -> None:
    text = zero_start.warning(["conv1", "conv2"])
    assert text is not None
    for part in ("every weight of 2 layers conv1, conv2 starts at zero", "weights=", "weight_filler", "recipe=equal"):
        assert part in text
    assert zero_start.warning([]) is None
