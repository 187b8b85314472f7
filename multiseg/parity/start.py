"""Random weights for a comparison without specified weights."""

from __future__ import annotations

import numpy as np

from multiseg.reference.bounded import Array
from multiseg.settings.initialisation import initial_weights
from multiseg.topology import Topology


def start_weights(topology: Topology, seed: int) -> dict[str, Array]:
    """Return weights of every parameter, for images in RGB: those of the recipe `equal`, but without values of 0 or 1.

    A bias of 0, or a factor of 1, would hide that a framework ignores it. Biases and averages are uniform within -1 and 1,
    factors, slopes and variances within 0.5 and 1.5.
    """
    channels = (topology.input_shape[0], topology.shapes[topology.outputs[0]][0])
    made = initial_weights(topology.weights, seed, "RGB", channels)
    for number, (name, shape) in enumerate(topology.weights.items()):
        if len(shape) < 2:
            draw = np.random.default_rng([seed, number, 1])
            low = -1.0 if name.rpartition(".")[2] in ("bias", "running_mean") else 0.5
            made[name] = draw.uniform(low, low + (2 if low < 0 else 1), shape).astype(np.float32)
    return made
