"""Which parameter and which value of one network is which of another that holds the same network under other names."""

from __future__ import annotations

from dataclasses import dataclass

from multiseg.errors import ModelError
from multiseg.topology.topology import Topology


@dataclass(frozen=True)
class Match:
    """Names of one network by the other's: of ``parameters`` (``layer.part``), and of the ``values`` that layers make."""

    parameters: dict[str, str]
    values: dict[str, str]


def match(one: Topology, other: Topology) -> Match:
    """Names of ``one`` by those of ``other``. Raises ModelError with their first difference where they are not the same network.

    It goes by structure: both canonical forms list the same nodes in the same order. Values that are no node's there, such as
    those between a padding and the convolution after it, have no counterpart.
    """
    found = one.diff(other)
    if found:
        raise ModelError(f"{one.source} and {other.source} are not the same network: {found.first}")
    parameters: dict[str, str] = {}
    values = {other.input: one.input}
    for node, partner in zip(one.canonical.nodes, other.canonical.nodes, strict=True):
        parameters |= {partner.weights[part]: node.weights[part] for part in node.weights}
        values[partner.value] = node.value
    return Match(parameters, values)
