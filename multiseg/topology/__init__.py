"""The neutral description of networks: layers, shapes, comparison and drawing."""

from multiseg.topology.difference import Difference
from multiseg.topology.layer import Layer, Shape
from multiseg.topology.topology import Topology

__all__ = ["Difference", "Layer", "Shape", "Topology"]
