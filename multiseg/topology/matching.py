"""Map the names of parameters and values between two files that hold the same network under other names."""

from __future__ import annotations

from dataclasses import dataclass

from multiseg.errors import ModelError
from multiseg.topology.canonical import Node
from multiseg.topology.topology import Topology


@dataclass(frozen=True)
class Match:
    """Names of one network by those of the other: of ``parameters`` (``layer.part``) and of ``values``, the layers' outputs."""

    parameters: dict[str, str]
    values: dict[str, str]


def match(one: Topology, other: Topology) -> Match:
    """Return the names of ``one`` by those of ``other``. Raises ModelError with the first difference if the networks differ.

    Names are matched by structure: both canonical forms list the same nodes in the same order. Values within a merged node,
    such as that between a padding and the convolution after it, have no counterpart.
    """
    if one.canonical.key != other.canonical.key:
        difference = one.diff(other)
        raise ModelError(f"{one.source} and {other.source} are not the same network: {difference.first}")
    parameters: dict[str, str] = {}
    values = dict(zip(other.inputs, one.inputs, strict=True))
    for node, partner in zip(one.canonical.nodes, other.canonical.nodes, strict=True):
        parameters |= {partner.weights[part]: node.weights[part] for part in node.weights if part in partner.weights}
        values |= dict(zip(_values(partner), _values(node), strict=False))
    return Match(parameters, values)


def _values(node: Node) -> tuple[str, ...]:
    """Return the names of a node's outputs; a part of a Split is a node of its own."""
    return node.layer.outputs if node.type == node.layer.type and len(node.layer.outputs) > 1 else (node.value,)
