"""Which layer of one network is which of another: first by what leads to and follows it, then by name, then by type."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from difflib import SequenceMatcher

from multiseg.topology.canonical import Canonical, Node, Wire

Key = Callable[[Node], Hashable]

# One after the other, among what is left: a layer that computes the same from the input, or has the same computed from
# it, is the one meant, whatever its name; among equals the name decides.
_KEYS: tuple[Key, ...] = (
    lambda node: (node.ahead, node.behind, node.layer.name),
    lambda node: (node.ahead, node.behind),
    lambda node: (node.ahead, node.layer.name),
    lambda node: node.ahead,
    lambda node: (node.behind, node.layer.name),
    lambda node: node.behind,
)


class Alignment:
    """The pairs of two networks' nodes, each way."""

    def __init__(self, one: Canonical, other: Canonical) -> None:
        self.forth: dict[Node, Node] = {}
        self.back: dict[Node, Node] = {}
        for key in _KEYS:
            self._pair_by(key, self.left(one), self.left_back(other))
        self._pair_in_order(self.left(one), self.left_back(other))

    def left(self, one: Canonical) -> list[Node]:
        """What has no partner, of the first network."""
        return [node for node in one.nodes if node not in self.forth]

    def left_back(self, other: Canonical) -> list[Node]:
        """What has no partner, of the second network."""
        return [node for node in other.nodes if node not in self.back]

    def same(self, wire: Wire, other: Wire) -> bool:
        """Whether both wires come from partners, layers without a partner passed over."""
        node, found = through(wire, self.forth), through(other, self.back)
        if node.node is None or found.node is None:
            return node.node is found.node
        return self.forth[node.node] is found.node and node.output == found.output

    def _pair(self, node: Node, other: Node) -> None:
        self.forth[node], self.back[other] = other, node

    def _pair_by(self, key: Key, nodes: Sequence[Node], others: Sequence[Node]) -> None:
        waiting: dict[Hashable, list[Node]] = defaultdict(list)
        for other in reversed(others):
            waiting[key(other)].append(other)
        for node in nodes:
            if waiting.get(key(node)):
                self._pair(node, waiting[key(node)].pop())

    def _pair_in_order(self, nodes: Sequence[Node], others: Sequence[Node]) -> None:
        names = {(node.layer.name, node.type) for node in nodes} & {(node.layer.name, node.type) for node in others}

        def key(node: Node) -> tuple[str, str]:
            known = (node.layer.name, node.type)
            return known if known in names else ("", node.type)

        matcher = SequenceMatcher(None, [key(node) for node in nodes], [key(node) for node in others], autojunk=False)
        for _, start, end, begin, stop in matcher.get_opcodes():
            for node, other in zip(nodes[start:end], others[begin:stop], strict=False):
                named = key(node) == key(other) and key(node)[0] != ""
                if named or any(self.same(*wires) for wires in zip(node.inputs, other.inputs, strict=False)):
                    self._pair(node, other)


def through(wire: Wire, partners: Mapping[Node, Node]) -> Wire:
    """The wire itself, or behind layers without a partner, along their first inputs, the one that has one."""
    while wire.node is not None and wire.node not in partners:
        wire = wire.node.inputs[0]
    return wire
