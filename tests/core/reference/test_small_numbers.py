"""Results near the smallest normal number: frameworks may return 0 for them."""

from __future__ import annotations

import numpy as np

from multiseg import reference
from multiseg.topology import Topology


def test_the_bound_of_a_softmax_allows_a_power_near_the_smallest_normal_number_to_be_0() -> None:
    """TensorFlow computes 0 for exp(-87.07), 1.31 times the smallest normal number (network 7633 of seed 31)."""
    layer = {"name": "soft", "type": "Softmax", "inputs": ["data"], "parameters": {"axis": 1}}
    topology = Topology.of(
        "small.net", "test", {"input": "data", "input_shape": (3,), "layers": [layer], "outputs": ["soft"]}
    )
    output = reference.forward(topology, {}, np.float32([[0, -87.07, -86.0]])).output
    tiny = np.finfo(np.float32).tiny
    assert tiny < output.value[0, 1] < 2 * tiny and output.bound[0, 1] + tiny >= output.value[0, 1]  # type: ignore[index]
    assert output.value[0, 2] > 2 * tiny and output.bound[0, 2] < 1e-4 * output.value[0, 2]  # type: ignore[index]
