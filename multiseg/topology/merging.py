"""Merge two networks into one graph, in which layers are the same, changed, added or missing."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from multiseg.topology.comparison import Change, Comparison
from multiseg.topology.description import Description
from multiseg.topology.layer import Layer

SAME, CHANGED, ADDED, MISSING = "same", "changed", "added", "missing"
STATES = (CHANGED, ADDED, MISSING, SAME)
MOVED = Change("inputs", "at another place", "at another place in the other network")


@dataclass(frozen=True)
class MergedLayer:
    """A layer of the first network and its counterpart in the other, with their differences; one of the layers may be None."""

    one: Layer | None
    other: Layer | None
    changes: tuple[Change, ...] = ()

    @property
    def state(self) -> str:
        """One of STATES, as seen from the first network."""
        if self.one is None or self.other is None:
            return ADDED if self.one is None else MISSING
        return CHANGED if self.changes else SAME

    @property
    def layer(self) -> Layer:
        """The layer of the first network if there is one, else that of the other."""
        layer = self.one or self.other
        assert layer is not None
        return layer


@dataclass(frozen=True)
class MergedNetworks:
    """Two networks as one graph.

    ``layers`` are in topological order, by the names of their values in ``drawing``, the description of the whole graph.
    ``sides``: for each pair of a source and its reader, the networks (0, 1) in which the reader takes it as input. ``absorbed``
    are the layers of each network that have no counterpart, because the other network has their effect within another layer or
    because they have none; ``unused`` are those that lead to no output. The graph has neither.
    """

    drawing: Description
    layers: dict[str, MergedLayer]
    sides: Mapping[tuple[str, str], set[int]]
    absorbed: tuple[tuple[str, ...], tuple[str, ...]]
    unused: tuple[tuple[str, ...], tuple[str, ...]]


def merge(one: Description, other: Description) -> MergedNetworks:
    """Return the graph of the layers of both networks, paired as in multiseg.topology.comparison.

    If that results in a cycle, because layers have changed places, some of them occur twice: as missing and as added.
    """
    networks = (one, other)
    merger = _Merger(networks)
    order = merger.ordered()
    while len(order) < len(merger.rows):
        merger.split(order)
        order = merger.ordered()
    names = {number: f"layer {number}" for number in order}
    sides: dict[tuple[str, str], set[int]] = {}
    for number in order:
        for source, used in merger.sources(number).items():
            name = source if isinstance(source, str) else names[source]
            sides[name, names[number]] = used
    layers = []
    for number in order:
        reads = tuple(name for name, reader in sides if reader == names[number])
        layers.append(replace(merger.rows[number].layer, inputs=reads, outputs=(names[number],)))
    inputs = merger.inputs
    drawing = Description(
        one.source, one.kind, one.input, one.input_shape, tuple(layers), (),
        more_inputs={name: shape for name, shape in inputs.items() if name != one.input},
    )  # fmt: skip
    unused = [tuple(layer.name for layer in each.layers if layer not in each.leading) for each in networks]
    return MergedNetworks(
        drawing,
        {names[number]: merger.rows[number] for number in order},
        sides,
        (merger.absorbed(0), merger.absorbed(1)),
        (unused[0], unused[1]),
    )


class _Merger:
    """The ``rows`` of the graph, and which layer of which network is in which of them."""

    def __init__(self, networks: tuple[Description, Description]) -> None:
        self.layers = [network.leading for network in networks]
        self.rows: list[MergedLayer] = []
        # of each network, the rows by the first output of their layers
        self._places: list[dict[str, int]] = [{}, {}]
        self._pair(Comparison(*networks))
        self._producers = [{name: layer for layer in layers for name in layer.outputs} for layers in self.layers]
        first, more = list(networks[0].inputs), list(networks[1].inputs)
        self.inputs = dict(networks[0].inputs)
        # inputs correspond by their place
        self._inputs = [{name: name for name in first}, dict(zip(more, first))]  # noqa: B905 - may differ in number
        for name in more[len(first) :]:
            self._inputs[1][name] = f"{name} in {networks[1].source}"
            self.inputs[self._inputs[1][name]] = networks[1].inputs[name]

    def _pair(self, comparison: Comparison) -> None:
        for node, partner, changes in comparison.nodes():
            pair = node.layer if node else None, partner.layer if partner else None
            known = [self._places[side].get(layer.outputs[0]) for side, layer in enumerate(pair) if layer]
            number = next((number for number in known if number is not None), None)
            if number is None:
                self._add(pair, changes)
                continue
            # a Split is one layer, and a node for each of its outputs
            self.rows[number] = replace(self.rows[number], changes=self.rows[number].changes + changes)
            for side, layer in enumerate(pair):
                if layer:
                    self._places[side].setdefault(layer.outputs[0], number)
        left = [{(layer.name, layer.type): layer for layer in self._left(side)} for side in (0, 1)]
        for key in left[0]:
            if key in left[1]:
                self._add((left[0][key], left[1][key]), ())

    def _left(self, side: int) -> list[Layer]:
        return [layer for layer in self.layers[side] if layer.outputs[0] not in self._places[side]]

    def _add(self, pair: tuple[Layer | None, Layer | None], changes: tuple[Change, ...]) -> None:
        for side, layer in enumerate(pair):
            if layer:
                self._places[side][layer.outputs[0]] = len(self.rows)
        self.rows.append(MergedLayer(*pair, changes))

    def absorbed(self, side: int) -> tuple[str, ...]:
        """Return the layers of a network that have no row."""
        return tuple(f"{layer.name} ({layer.type})" for layer in self._left(side))

    def sources(self, number: int) -> dict[int | str, set[int]]:
        """Return the rows, or inputs, that a row reads, and the networks in which it does."""
        sources: dict[int | str, set[int]] = {}
        for side, layer in enumerate((self.rows[number].one, self.rows[number].other)):
            values = list(layer.inputs) if layer else []
            while values:
                name = values.pop(0)
                producer = self._producers[side].get(name)
                if producer is None:
                    sources.setdefault(self._inputs[side][name], set()).add(side)
                    continue
                place = self._places[side].get(producer.outputs[0])
                if place is None or place == number:  # a layer without a row, or one within this row
                    values[:0] = producer.inputs
                else:
                    sources.setdefault(place, set()).add(side)
        return sources

    def ordered(self) -> list[int]:
        """Return the rows in topological order, without those in and after a cycle; else in the order of the first network."""
        rank = self._ranks()
        waiting = {number: {each for each in self.sources(number) if isinstance(each, int)} for number in rank}
        readers: dict[int, list[int]] = defaultdict(list)
        for number, sources in waiting.items():
            for source in sources:
                readers[source].append(number)
        ready = [(rank[number], number) for number, sources in waiting.items() if not sources]
        heapq.heapify(ready)
        order = []
        while ready:
            _, number = heapq.heappop(ready)
            order.append(number)
            for reader in readers[number]:
                waiting[reader].discard(number)
                if not waiting[reader]:
                    heapq.heappush(ready, (rank[reader], reader))
        return order

    def _ranks(self) -> dict[int, tuple[int, int]]:
        """Return for each row its place in the first network, or after which of its rows it comes in the other."""
        places = [[self._places[side].get(layer.outputs[0]) for layer in self.layers[side]] for side in (0, 1)]
        ranks = {number: (at, -1) for at, number in enumerate(places[0]) if number is not None}
        previous = -1
        for at, number in enumerate(places[1]):
            if number is not None:
                previous = ranks.setdefault(number, (previous, at))[0]
        return ranks

    def split(self, order: Sequence[int]) -> None:
        """Split a pair of layers on a cycle of rows that are not in ``order``, preferably one with differences."""
        cycle = self._cycle(set(range(len(self.rows))) - set(order))
        pairs = [number for number in cycle if self.rows[number].one and self.rows[number].other]
        number = min(pairs, key=lambda number: self.rows[number].state == SAME)
        row = self.rows[number]
        assert row.other is not None
        changes = (*row.changes, MOVED)
        self.rows[number] = replace(row, other=None, changes=changes)
        self._add((None, row.other), changes)

    def _cycle(self, rows: set[int]) -> list[int]:
        path = [min(rows)]
        while True:
            source = next(each for each in self.sources(path[-1]) if each in rows)
            assert isinstance(source, int)
            if source in path:
                return path[path.index(source) :]
            path.append(source)
