"""The first layers in which two descriptions differ, as a network of these layers in each of the two ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from multiseg.errors import ModelError
from multiseg.parity.case import Case
from multiseg.parity.reduction.parts import part_of
from multiseg.reference.bounded import Array
from multiseg.topology import Layer, Topology
from multiseg.topology.alignment import Alignment
from multiseg.topology.canonical import canonical


def differing_case(case: Case, other: Topology, values: Mapping[str, Array]) -> tuple[tuple[str, ...], Case]:
    """Return the names of the first layers of the case's network that differ in ``other``, and a case of these layers.

    Its reference has the layers of the case, the network that a backend computes has those of ``other``. Raises ModelError if
    these layers are not networks of one input.
    """
    one = case.topology
    layers, others = _first(one, other)
    name = layers[-1].outputs[0]
    reference, images = part_of(one, layers, values, name)
    written, _ = part_of(one, _renamed(layers, others), values, name)
    weights = {key: case.weights[key] for key in reference.weights}
    part = replace(
        case, topology=reference, weights=weights, images=images, labels=None, loss="l2", loss_options={}, class_weights=(),
        classes=False, ignore=None, steps=0, written=written,
    )  # fmt: skip
    return tuple(layer.name for layer in layers), part


def _first(one: Topology, other: Topology) -> tuple[list[Layer], list[Layer]]:
    """Return the first layers that differ, of both networks; an Identity is in the place of one that is missing."""
    common = {(layer.name, layer.type) for layer in one.layers} & {(layer.name, layer.type) for layer in other.layers}
    names = {name for name, _ in common}
    forms = canonical(one, names), canonical(other, names)
    pairs = Alignment(*forms)
    for node in forms[0].nodes:
        partner = pairs.forth.get(node)
        if partner is None and node.layer.name not in forms[1].unused:
            return [node.layer], [_nothing(node.layer)]
        if partner is not None and node.signature() != partner.signature():
            return [node.layer], [partner.layer]
    for node in forms[1].nodes:
        if node not in pairs.back and node.layer.name not in forms[0].unused:
            return [_nothing(node.layer)], [node.layer]
    raise ModelError("the networks have the same layers, which are connected differently")


def _nothing(layer: Layer) -> Layer:
    """Return the Identity in the place of a layer. Raises ModelError if it joins several values."""
    if len(layer.inputs) > 1:
        raise ModelError(f"{layer.name!r}, which joins {len(layer.inputs)} values, is missing in one of the networks")
    return replace(layer, type="Identity", parameters={}, weights={}, outputs=layer.outputs[:1])


def _renamed(layers: Sequence[Layer], others: Sequence[Layer]) -> list[Layer]:
    """Return the layers ``others`` with the names and the input of ``layers``, so that their weights have the same names."""
    computed = {value for layer in layers for value in layer.outputs}
    read = list(dict.fromkeys(value for layer in layers for value in layer.inputs if value not in computed))
    theirs = {value for layer in others for value in layer.outputs}
    their_read = list(dict.fromkeys(value for layer in others for value in layer.inputs if value not in theirs))
    if len(read) != len(their_read):
        raise ModelError(f"{layers[0].name!r} has {len(read)} inputs, {others[0].name!r} has {len(their_read)}")
    values = dict(zip(their_read, read, strict=True))
    renamed = []
    for number, layer in enumerate(others):
        partner = layers[number] if number < len(layers) else None
        last = number == len(others) - 1
        name = partner.name if partner else layer.name
        outputs = layers[-1].outputs[:1] if last else (f"{name}_before",)
        renamed.append(
            replace(layer, name=name, inputs=tuple(values[value] for value in layer.inputs), outputs=outputs)
        )
        values[layer.outputs[0]] = outputs[0]
    return renamed
