"""Arrays of weights that several layers share, in two networks that are compared.

The names of such an array always have equal values here; its gradient, the sum over its uses, has the first name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from multiseg.reference.bounded import Array
from multiseg.topology import Shape, Topology


def with_all_names(topology: Topology, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights in which all names of an array have the values of the first of these names that ``weights`` has."""
    used, values = topology.weights, dict(weights)
    for group in topology.tied:
        first = next((name for name in group if name in weights), None)
        if first is not None:
            values.update({name: weights[first] for name in group if name in used})
    return values


def with_unused_names(topology: Topology, weights: Mapping[str, Array], own: Mapping[str, Array]) -> dict[str, Array]:
    """Return all weights of a file: ``weights``, also by the further names of their arrays, and the others as in ``own``."""
    values = {**own, **weights}
    for group in topology.tied:
        first = next((name for name in group if name in weights), None)
        if first is not None:
            values.update({name: weights[first] for name in group if name in own})
    return values


def arrays_of(topology: Topology) -> dict[str, Shape]:
    """Return the shapes of a network's weights, of each array once, by its first name."""
    owners = topology.owners
    return {name: shape for name, shape in topology.weights.items() if owners.get(name, name) == name}


def differences(one: Topology, other: Topology) -> Iterator[str]:
    """Yield the differences in which weights two networks of equal structure share, in words."""
    if one.canonical.key != other.canonical.key:
        return  # a network that an exporter wrote with further layers, which shares nothing
    networks = one, other
    owners = [network.owners for network in networks]
    partners: tuple[dict[str, dict[str, str]], ...] = (
        {},
        {},
    )  # arrays of the other network by array, and names of their uses
    for nodes in zip(one.canonical.nodes, other.canonical.nodes, strict=True):
        for part in nodes[0].weights:
            if part not in nodes[1].weights:
                continue
            names = [node.weights[part] for node in nodes]
            arrays = [own.get(name, name) for own, name in zip(owners, names, strict=True)]
            partners[0].setdefault(arrays[0], {}).setdefault(arrays[1], names[1])
            partners[1].setdefault(arrays[1], {}).setdefault(arrays[0], names[0])
    for several, has, lacks in ((partners[0], one, other), (partners[1], other, one)):
        for array, names_there in several.items():
            if len(names_there) > 1:
                separate = " and ".join(map(repr, names_there.values()))
                yield f"{array!r} is one array in {has.source}, and separate arrays in {lacks.source}: {separate}"
