"""What the float64 reference makes of images."""

from __future__ import annotations

from helpers.exported import Array
from multiseg import reference
from multiseg.topology import Topology


def output(network: Topology, weights: dict[str, Array], images: Array) -> Array:
    found: Array = reference.forward(network, weights, images).output.value
    return found
