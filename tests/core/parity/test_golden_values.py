"""A training that amplifies the rounding of float64 to differences as large as the weights is no change of the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from multiseg.parity.comparing import Loss
from multiseg.parity.golden.values import Recipe, compared, computed
from multiseg.parity.plan import ParityBatch
from multiseg.parity.start import start_weights
from multiseg.topology import Topology

WINDOWS = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def recipe(rate: float) -> Recipe:
    layers = [
        {"name": "a", "type": "Conv", "inputs": ["data"], "parameters": {**WINDOWS, "num_output": 2}},
        {"name": "bent", "type": "Tanh", "inputs": ["a"]},
        {"name": "b", "type": "Conv", "inputs": ["bent"], "parameters": {**WINDOWS, "num_output": 1}},
        {"name": "out", "type": "Tanh", "inputs": ["b"]},
    ]
    topology = Topology.of(
        "net", "test", {"input": "data", "input_shape": (1, 5, 5), "layers": layers, "outputs": ["out"]}
    )
    draw = np.random.default_rng(1)
    images, labels = (draw.normal(0, 1, (3, 1, 5, 5)).astype(np.float32) for _ in range(2))
    weights = start_weights(topology, 1)
    solver = {"name": "sgd", "momentum": 0.5, "weight_decay": 0.01}
    return Recipe(
        topology, weights, tuple(weights), lambda step: ParityBatch(images, labels, images),
        lambda network: Loss.of(network, "l2", False), solver, rate, 40,
    )  # fmt: skip


@pytest.mark.parametrize(("rate", "is_chaotic"), [(1.0, False), (8.0, True)])
def test_rounding_that_a_training_amplifies_is_no_change(rate: float, is_chaotic: bool) -> None:
    """Two trainings whose initial weights differ by less than the rounding of float64 would make of them in a few sums."""
    here = recipe(rate)
    elsewhere = {name: value.astype(np.float64) * (1 + 2.0**-46) for name, value in here.weights.items()}
    values, others = computed(here), computed(replace(here, weights=elsewhere)).weights
    apart = max(float(np.abs(others[name] - value).max()) for name, value in values.weights.items())
    assert (apart > 0.01) == is_chaotic
    rows, notes = compared("golden.safetensors", replace(values, weights=others), here)
    assert all(row.ok for row in rows)
    assert [note for note in notes if "amplifies the rounding of float64" in note] if is_chaotic else not notes


def test_a_change_is_found_where_the_training_does_not_amplify() -> None:
    here = recipe(1.0)
    other = computed(replace(here, solver={**here.solver, "momentum": 0.5001}))
    rows, notes = compared("golden.safetensors", replace(computed(here), weights=other.weights), here)
    assert [row.name.startswith("the weights") for row in rows if not row.ok] == [True] * len(other.weights)
    assert not notes
