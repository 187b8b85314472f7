"""Pair the layers of two networks: first by the layers before and after them, then by name, then by type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from difflib import SequenceMatcher

from multiseg.topology.canonical import Canonical, Node, Wire

Key = Callable[[Node], Hashable]

# Applied in this order to the layers not yet paired. Layers that compute the same from the input, or from which the same is
# computed, correspond whatever their names; the name decides between equal candidates.
_KEYS: tuple[Key, ...] = (
    lambda node: (node.ahead, node.behind, node.layer.name),
    lambda node: (node.ahead, node.behind),
    lambda node: (node.ahead, node.layer.name),
    lambda node: node.ahead,
    lambda node: (node.behind, node.layer.name),
    lambda node: node.behind,
)


class Alignment:
    """The pairs of nodes of two networks: ``forth`` maps the first network's nodes to the second's, ``back`` the reverse."""

    def __init__(self, one: Canonical, other: Canonical) -> None:
        self.forth: dict[Node, Node] = {}
        self.back: dict[Node, Node] = {}
        for key in _KEYS:
            self._pair_by(key, self.left(one), self.left_back(other))
        self._pair_in_order(self.left(one), self.left_back(other))

    def left(self, one: Canonical) -> list[Node]:
        """Return the nodes of the first network that have no partner."""
        return [node for node in one.nodes if node not in self.forth]

    def left_back(self, other: Canonical) -> list[Node]:
        """Return the nodes of the second network that have no partner."""
        return [node for node in other.nodes if node not in self.back]

    def same(self, wire: Wire, other: Wire) -> bool:
        """Return whether both wires come from paired nodes, skipping nodes without a partner."""
        source, other_source = through(wire, self.forth), through(other, self.back)
        if source.node is None or other_source.node is None:
            return source.node is other_source.node and source.output == other_source.output
        return self.forth[source.node] is other_source.node and source.output == other_source.output

    def _pair(self, node: Node, other: Node) -> None:
        self.forth[node], self.back[other] = other, node

    def _pair_by(self, key: Key, nodes: Sequence[Node], others: Sequence[Node]) -> None:
        candidates: dict[Hashable, list[Node]] = defaultdict(list)
        for other in reversed(others):
            candidates[key(other)].append(other)
        for node in nodes:
            if candidates.get(key(node)):
                self._pair(node, candidates[key(node)].pop())

    def _pair_in_order(self, nodes: Sequence[Node], others: Sequence[Node]) -> None:
        common = {(node.layer.name, node.type) for node in nodes} & {(node.layer.name, node.type) for node in others}

        def key(node: Node) -> tuple[str, str]:
            identity = (node.layer.name, node.type)
            return identity if identity in common else ("", node.type)

        matcher = SequenceMatcher(None, [key(node) for node in nodes], [key(node) for node in others], autojunk=False)
        for _, start, end, begin, stop in matcher.get_opcodes():
            for node, other in zip(nodes[start:end], others[begin:stop], strict=False):
                named = key(node) == key(other) and key(node)[0] != ""
                if named or any(self.same(*wires) for wires in zip(node.inputs, other.inputs, strict=False)):
                    self._pair(node, other)


def through(wire: Wire, partners: Mapping[Node, Node]) -> Wire:
    """Return the wire, or the nearest wire before it that comes from a paired node, following the first input of each node."""
    while wire.node is not None and wire.node not in partners:
        wire = wire.node.inputs[0]
    return wire
