"""Describe the differences between two networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from multiseg.topology import words
from multiseg.topology.alignment import Alignment, through
from multiseg.topology.canonical import COMMUTATIVE, SIZED, Node, Wire, canonical
from multiseg.topology.description import Description
from multiseg.topology.vocabulary import comparable


@dataclass(frozen=True)
class NetworkDifference:
    """All differences between two networks, one line each, in the order of the layers. False if there are none.

    ``one`` and ``other`` are the titles of ``networks``. ``notes`` report differences that are not compared: those of the losses.
    """

    one: str
    other: str
    networks: tuple[Description, Description] = field(repr=False)
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


class Change(NamedTuple):
    """One difference of a layer: the ``key`` of the parameter, ``type`` or ``inputs``; a ``short`` text, and a whole line."""

    key: str
    short: str
    line: str


class NodeDifference(NamedTuple):
    """A node of the first network and its partner in the other, and what differs; without a partner, one of them is None."""

    one: Node | None
    other: Node | None
    changes: tuple[Change, ...]


def compare(one: Description, other: Description) -> NetworkDifference:
    """Return all differences between two topologies; layers are paired by what they compute, their names and their types."""
    comparison = Comparison(one, other)
    titles = comparison.titles
    notes: tuple[str, ...] = ()
    if one.loss != other.loss:
        notes = (
            f"losses are not compared: {one.loss or 'none'} in {titles[0]}, {other.loss or 'none'} in {titles[1]}",
        )
    if comparison.alike:
        return NetworkDifference(*titles, (one, other), notes=notes)
    lines = comparison.lines()
    shapes = [list(network.inputs.values()) for network in (one, other)]
    if shapes[0] != shapes[1]:
        listed = [words.listed(list(map(words.size, each))) for each in shapes]
        sizes = f"{listed[0]} in {titles[0]}, {listed[1]} in {titles[1]}"
        lines = [f"input: {sizes}", *lines]
    return NetworkDifference(
        *titles, (one, other), tuple(lines) or ("the same layers are connected differently",), notes=notes
    )


class Comparison:
    """The canonical forms of two networks and the alignment of their nodes; ``alike``: whether the networks are the same."""

    def __init__(self, one: Description, other: Description) -> None:
        sources = one.source, other.source
        self.titles = sources if one.source != other.source else ("the first", "the second")
        self.title, self.other_title = self.titles
        self.same_kind = one.kind == other.kind
        self.one, self.other = canonical(one), canonical(other)
        self.alike = self.one.key == self.other.key and (
            not self.same_kind or not any(map(_differ_in_momentum, self.one.nodes, self.other.nodes))
        )
        if not self.alike:
            # layers that both files have under one name are not merged with others, so that messages can name them
            named = [{(layer.name, layer.type) for layer in network.layers} for network in (one, other)]
            names = {name for name, _ in named[0] & named[1]}
            self.one, self.other = canonical(one, names), canonical(other, names)

    @cached_property
    def pairs(self) -> Alignment:
        """The nodes of both networks that correspond."""
        return Alignment(self.one, self.other)

    def lines(self) -> list[str]:
        """Return all differences except that of the input size, in the order of the first network's layers."""
        outputs = self._reads("output", self.one.outputs, self.other.outputs)
        return [change.line for row in self.nodes() for change in row.changes] + [change.line for change in outputs]

    def nodes(self) -> list[NodeDifference]:
        """Return the pairs of nodes, with or without differences, and the nodes without a partner, in the order of lines()."""
        position = {node: number for number, node in enumerate(self.one.nodes)}
        numbered: list[tuple[tuple[int, int], NodeDifference]] = []
        for node, other in self.pairs.forth.items():
            numbered.append(((position[node], 0), NodeDifference(node, other, tuple(self._pair(node, other)))))
        for node in self.pairs.left(self.one):
            unused = node.layer.name in self.other.unused  # its readers have another input, which is the difference
            changes = () if unused else (_missing(self.other_title, self.title, node, self.pairs.forth),)
            numbered.append(((position[node], 0), NodeDifference(node, None, changes)))
        previous = -1
        for number, other in enumerate(self.other.nodes):
            if other in self.pairs.back:
                previous = position[self.pairs.back[other]]
            else:
                unused = other.layer.name in self.one.unused
                changes = () if unused else (_missing(self.title, self.other_title, other, self.pairs.back),)
                numbered.append(((previous, number + 1), NodeDifference(None, other, changes)))
        return [row for _, row in sorted(numbered, key=lambda each: each[0])]

    def _pair(self, node: Node, other: Node) -> list[Change]:
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
            text = f"{label}: {types[0]} in {self.title}, {types[1]} in {self.other_title}"
            return [Change("type", f"{types[0]} → {types[1]}", text), *reads]
        return [*self._parameters(label, node, other, resized), *reads]

    def _parameters(self, label: str, node: Node, other: Node, resized: bool) -> Iterator[Change]:
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
            name = words.name(key, node.type)
            values = words.value(key, value), words.value(key, another)
            short = f"{name} {values[0]} → {values[1]}"
            if key == "divisors":
                if one["pads"] == two["pads"] or resized:
                    yield Change(key, "divisors at the borders", f"{label}: {self._divisors(node, other)}")
            elif isinstance(value, bool) and isinstance(another, bool):
                text = f"{'with' if value else 'without'} {name} in {title}, {'with' if another else 'without'} in {other_title}"
                yield Change(key, short, f"{label}: {text}")
            else:
                yield Change(key, short, f"{label}: {name} {values[0]} in {title}, {values[1]} in {other_title}")

    def _divisors(self, node: Node, other: Node) -> str:
        counts = [bool(each.layer.parameters.get("count_include_pad")) for each in (node, other)]
        if counts[0] == counts[1]:
            return f"averages at the borders have other divisors in {self.title} than in {self.other_title}"
        counting, not_counting = (self.title, self.other_title) if counts[0] else (self.other_title, self.title)
        return f"padding counts in the averages of {counting}, not in those of {not_counting}"

    def _reads(self, label: str, wires: list[Wire], others: list[Wire], any_order: bool = False) -> list[Change]:
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
        one, two = _names(wires), _names(others)
        text = f"{label} {verb} {one} in {self.title}, {two} in {self.other_title}"
        return [Change("inputs", f"reads {one} → {two}", text)]

    def _same(self, wire: Wire, other: Wire) -> bool:
        """Return whether two wires correspond. A layer that the other file has too, but does not use, is not skipped."""
        if wire.factor != other.factor:
            return False
        if wire.node not in self.pairs.forth and _named(wire, self.other.unused):
            return False
        if other.node not in self.pairs.back and _named(other, self.one.unused):
            return False
        return self.pairs.same(wire, other)


def _missing(title: str, other_title: str, node: Node, partners: Mapping[Node, Node]) -> Change:
    ends = [through(wire, partners).node for wire in node.inputs]
    previous = dict.fromkeys("the input" if end is None else partners[end].layer.name for end in ends)
    text = f"{title} has no {node.layer.type} after {words.listed(list(previous))} ({node.layer.name} in {other_title})"
    return Change("layer", f"not in {title}", text)


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
