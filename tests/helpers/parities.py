"""Results of a parity check from arrays: what several sides would have computed, for tests of how results are shown."""

from __future__ import annotations

import numpy as np

from helpers.networks import Node, layer, topology
from multiseg.parity.result import Parity
from multiseg.parity.rows import ParityRow
from multiseg.reference import Bounded

SIDES = ("Caffe", "PyTorch", "TensorFlow")
BOUND = 1e-5


def deep(pairs: int, prefix: str = "") -> list[Node]:
    """A network of convolutions with an activation each."""
    nodes: list[Node] = []
    last = "data"
    for number in range(pairs):
        nodes.append(layer(f"{prefix}conv{number}", "Conv", last, num_output=4, kernel_shape=[3, 3], pads=[1] * 4))
        nodes.append(layer(f"{prefix}tanh{number}", "Tanh", nodes[-1]["name"]))
        last = nodes[-1]["name"]
    return nodes


def result(nodes: list[Node], shares: dict[str, float] | None = None) -> Parity:
    """A result with rows of every stage for SIDES, and the worst element of each layer at [1, 2, 11, 7].

    ``shares`` are the largest shares of the tolerance by layer, otherwise 0.3; NaN: the element is NaN.
    """
    network = topology(nodes)
    draw = np.random.default_rng(0)
    rows = []
    for side in SIDES:
        for each in network.layers:
            for stage, name, shape in [
                ("forward", each.outputs[0], (2, *each.shapes[0])),
                *(("gradient", f"{each.name}.{part}", size) for part, size in each.weights.items()),
                *(("step", f"{each.name}.{part}", size) for part, size in each.weights.items()),
            ]:
                value = draw.normal(size=shape)
                measured = value + BOUND * draw.uniform(-0.2, 0.2, shape)
                if stage == "forward":
                    measured[1, 2, 11, 7] = value[1, 2, 11, 7] + BOUND * (shares or {}).get(each.name, 0.3)
                expected = Bounded(value, np.full(shape, BOUND), 27)
                rows.append(ParityRow.of(side, stage, name, expected, measured, 1 if stage == "step" else None))
    return Parity(network.source, list(SIDES), {"seed": 1}, rows, network=network)
