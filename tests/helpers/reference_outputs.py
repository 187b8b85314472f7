"""Random weights for a network, and what the float64 reference makes of images with them."""

from __future__ import annotations

from typing import Any

import numpy as np

from multiseg import reference
from multiseg.topology import Topology

Array = np.ndarray[Any, Any]


def weights_of(network: Topology, seed: int = 0) -> dict[str, Array]:
    draw = np.random.default_rng(seed)
    made = {}
    for name, shape in network.weights.items():
        value = draw.random(shape) + 0.5 if name.endswith("running_var") else draw.standard_normal(shape)
        made[name] = (value / np.sqrt(max(np.prod(shape[1:]), 1))).astype(np.float32)
    return made


def output(network: Topology, weights: dict[str, Array], images: Array) -> Array:
    found: Array = reference.forward(network, weights, images).output.value
    return found
