"""Describe the differences between two networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from multiseg.topology import words
from multiseg.topology.alignment import Alignment, through
from multiseg.topology.canonical import COMMUTATIVE, SIZED, Canonical, Node, Wire, canonical
from multiseg.topology.description import Description
from multiseg.topology.vocabulary import comparable


@dataclass(frozen=True)
class Difference:
    """All differences between two networks, one line each, in the order of the layers. False if there are none.

    ``notes`` report differences that are not compared: those of the losses.
    """

    one: str
    other: str
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> str | None:
        """The difference nearest to the input, None if there is none."""
        return next(iter(self.differences), None)

    def __bool__(self) -> bool:
        return bool(self.differences)

    def __len__(self) -> int:
        return len(self.differences)

    def __iter__(self) -> Iterator[str]:
        return iter(self.differences)

    def __str__(self) -> str:
        return "\n".join([*(self.differences or (f"{self.one} and {self.other} hold the same network",)), *self.notes])


def compare(one: Description, other: Description) -> Difference:
    """Return all differences between two topologies; layers are paired by what they compute, their names and their types."""
    titles = (one.source, other.source) if one.source != other.source else ("the first", "the second")
    notes: tuple[str, ...] = ()
    if one.loss != other.loss:
        notes = (
            f"losses are not compared: {one.loss or 'none'} in {titles[0]}, {other.loss or 'none'} in {titles[1]}",
        )
    forms = canonical(one), canonical(other)
    alike = forms[0].key == forms[1].key
    if alike and (one.kind != other.kind or not any(map(_differ_in_momentum, forms[0].nodes, forms[1].nodes))):
        return Difference(*titles, notes=notes)
    # layers that both files have under one name are not merged with others, so that messages can name them
    common = {(layer.name, layer.type) for layer in one.layers} & {(layer.name, layer.type) for layer in other.layers}
    names = {name for name, _ in common}
    comparison = _Comparison(canonical(one, names), canonical(other, names), titles, one.kind == other.kind)
    lines = comparison.lines()
    shapes = [list(network.inputs.values()) for network in (one, other)]
    if shapes[0] != shapes[1]:
        listed = [words.listed(list(map(words.size, each))) for each in shapes]
        sizes = f"{listed[0]} in {titles[0]}, {listed[1]} in {titles[1]}"
        lines = [f"input: {sizes}", *lines]
    return Difference(*titles, tuple(lines) or ("the same layers are connected differently",), notes)


class _Comparison:
    """Two canonical networks and the alignment of their nodes."""

    def __init__(self, one: Canonical, other: Canonical, titles: tuple[str, str], same_kind: bool) -> None:
        self.one, self.other = one, other
        self.same_kind = same_kind
        self.title, self.other_title = titles
        self.pairs = Alignment(one, other)

    def lines(self) -> list[str]:
        """Return all differences except that of the input size, in the order of the first network's layers."""
        position = {node: number for number, node in enumerate(self.one.nodes)}
        numbered: list[tuple[tuple[int, int], str]] = []
        for node, other in self.pairs.forth.items():
            numbered += [((position[node], 0), line) for line in self._pair(node, other)]
        for node in self.pairs.left(self.one):
            if node.layer.name not in self.other.unused:
                line = _missing(self.other_title, self.title, node, self.pairs.forth)
                numbered.append(((position[node], 0), line))
        previous = -1
        for number, other in enumerate(self.other.nodes):
            if other in self.pairs.back:
                previous = position[self.pairs.back[other]]
            elif other.layer.name not in self.one.unused:
                numbered.append(
                    ((previous, number + 1), _missing(self.title, self.other_title, other, self.pairs.back))
                )
        outputs = self._reads("output", self.one.outputs, self.other.outputs)
        return [line for _, line in sorted(numbered, key=lambda each: each[0])] + outputs

    def _pair(self, node: Node, other: Node) -> list[str]:
        names = node.layer.name, other.layer.name
        label = names[0] if names[0] == names[1] else f"{names[0]} ({names[1]} in {self.other_title})"
        reads = self._reads(label, node.inputs, other.inputs, node.type in COMMUTATIVE)
        resized = [wire.shape for wire in node.inputs] != [wire.shape for wire in other.inputs]
        if resized and (node.layer.type, _declared(node)) == (other.layer.type, _declared(other)):
            return reads  # the files specify the same; the difference follows from earlier layers
        if node.type != other.type:
            types = [each.layer.type for each in (node, other)]
            if types[0] == types[1]:
                types = [f"{each.layer.type} ({words.parameters(each.layer)})" for each in (node, other)]
            return [f"{label}: {types[0]} in {self.title}, {types[1]} in {self.other_title}", *reads]
        differing = [f"{label}: {line}" for line in self._parameters(node, other, resized)]
        return differing + reads

    def _parameters(self, node: Node, other: Node, resized: bool) -> Iterator[str]:
        title, other_title = self.title, self.other_title
        one, two = dict(node.parameters), dict(other.parameters)
        one["weights"], two["weights"] = node.signature()[1], other.signature()[1]
        if self.same_kind and _differ_in_momentum(node, other):  # else the default values are not comparable
            one["momentum"], two["momentum"] = (
                node.layer.parameters.get("momentum", "by default") for node in (node, other)
            )
        for key in dict.fromkeys([*one, *two]):
            value, another = one.get(key), two.get(key)
            if value == another or (resized and key in SIZED and key not in ("pads", "divisors")):
                continue
            if key == "divisors":
                if one["pads"] == two["pads"] or resized:
                    yield self._divisors(node, other)
            elif isinstance(value, bool) and isinstance(another, bool):
                name = words.name(key, node.type)
                yield f"{'with' if value else 'without'} {name} in {title}, {'with' if another else 'without'} in {other_title}"
            else:
                name = words.name(key, node.type)
                yield f"{name} {words.value(key, value)} in {title}, {words.value(key, another)} in {other_title}"

    def _divisors(self, node: Node, other: Node) -> str:
        counts = [bool(each.layer.parameters.get("count_include_pad")) for each in (node, other)]
        if counts[0] == counts[1]:
            return f"averages at the borders have other divisors in {self.title} than in {self.other_title}"
        counting, not_counting = (self.title, self.other_title) if counts[0] else (self.other_title, self.title)
        return f"padding counts in the averages of {counting}, not in those of {not_counting}"

    def _reads(self, label: str, wires: list[Wire], others: list[Wire], any_order: bool = False) -> list[str]:
        remaining = list(others)
        for wire in wires:
            partner = next(
                (each for each in (remaining if any_order else remaining[:1]) if self._same(wire, each)), None
            )
            if partner is None:
                break
            remaining.remove(partner)
        else:
            if not remaining:
                return []
        verb = "is" if label == "output" else "reads"
        return [f"{label} {verb} {_names(wires)} in {self.title}, {_names(others)} in {self.other_title}"]

    def _same(self, wire: Wire, other: Wire) -> bool:
        """Return whether two wires correspond. A layer that the other file has too, but does not use, is not skipped."""
        if wire.factor != other.factor:
            return False
        if wire.node not in self.pairs.forth and _named(wire, self.other.unused):
            return False
        if other.node not in self.pairs.back and _named(other, self.one.unused):
            return False
        return self.pairs.same(wire, other)


def _missing(title: str, other_title: str, node: Node, partners: Mapping[Node, Node]) -> str:
    ends = [through(wire, partners).node for wire in node.inputs]
    previous = dict.fromkeys("the input" if end is None else partners[end].layer.name for end in ends)
    return f"{title} has no {node.layer.type} after {words.listed(list(previous))} ({node.layer.name} in {other_title})"


def _named(wire: Wire, names: set[str]) -> bool:
    return wire.node is not None and wire.node.layer.name in names


def _names(wires: list[Wire]) -> str:
    names = [("the input" if wire.node is None else wire.node.layer.name, wire.factor) for wire in wires]
    return words.listed([name if factor == 1 else f"{factor:g} times {name}" for name, factor in names])


def _differ_in_momentum(node: Node, other: Node) -> bool:
    """Return whether two batch normalisations update their stored statistics in different ways."""
    values = (each.layer.parameters.get("momentum") for each in (node, other) if each.type == "BatchNormalization")
    return len(set(map(comparable, values))) > 1


def _declared(node: Node) -> Any:
    """Return the parameters of a layer as the file specifies them, whatever its input sizes."""
    return comparable(dict(node.layer.parameters))
