"""The neutral description of networks: layers, shapes, comparison and drawing."""

from multiseg.topology.layer import Layer, Shape
from multiseg.topology.topology import Topology

__all__ = ["Layer", "Shape", "Topology"]
