"""Planted mistakes: one layer of a random network computes something else, as if a framework or a file had it wrong."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from multiseg import reference
from multiseg.campaign.layers import DRAWN
from multiseg.campaign.networks import draw_case
from multiseg.errors import ModelError
from multiseg.parity.case import STATISTICS, Case
from multiseg.topology import Layer, Topology

# types of layers without weights that are taken for each other
CONFUSED = (
    ("MaxPool", "AveragePool"), ("GlobalMaxPool", "GlobalAveragePool"), ("Relu", "Abs"), ("Sigmoid", "Tanh"),
    ("Add", "Sub"), ("Mul", "Div"), ("Sum", "Max"), ("ReduceMean", "ReduceSum"), ("Exp", "Neg"), ("Elu", "Swish"),
    ("Softmax", "LogSoftmax"), ("Softplus", "Relu"),
)  # fmt: skip
TRIES = 8


@dataclass(frozen=True)
class Planted:
    """A mistake in ``layer``: ``case`` is the whole network, in which the backend computes the network or the weights with it."""

    layer: str
    kind: str  # of mistake, such as "Conv pads"
    case: Case

    @property
    def visible(self) -> bool:
        """Whether the output in float64 moves by more than rounding allows both computations."""
        with np.errstate(all="ignore"):
            try:
                right, wrong = (
                    reference.forward(topology, weights, self.case.images).output
                    for topology, weights in (
                        (self.case.topology, self.case.weights),
                        (self.case.written or self.case.topology, self.case.own or self.case.weights),
                    )
                )
            except reference.NotComputable:
                return False
        if right.value.shape != wrong.value.shape:
            return True
        distance = np.abs(right.value - wrong.value)
        return bool(np.any(distance > 2 * (right.bound + wrong.bound)))


def planted(seed: int, number: int) -> Iterator[Planted]:
    """Yield mistakes in the layers of the random network ``number`` of a campaign: one of each kind that fits each layer."""
    case = draw_case(seed, number)
    draw = random.Random(f"mutations {seed} {number}")
    for layer in case.topology.layers:
        yield from _of_parameters(case, layer, draw)
        yield from _of_type(case, layer)
        yield from _of_weights(case, layer)


def _of_parameters(case: Case, layer: Layer, draw: random.Random) -> Iterator[Planted]:
    """Change the parameters of a layer so that the shapes of all outputs and weights stay."""
    if layer.type not in DRAWN:
        return
    before = case.topology.shapes[layer.inputs[0]]
    seen: set[str] = set()
    for _ in range(TRIES):
        drawn = DRAWN[layer.type](draw, before)
        for key in sorted(set(drawn) & set(layer.parameters)):
            if key in seen or drawn[key] is None or drawn[key] == layer.parameters[key]:
                continue
            changed = _changed(case.topology, replace(layer, parameters={**layer.parameters, key: drawn[key]}))
            if changed is not None:
                seen.add(key)
                yield Planted(layer.name, f"{layer.type} {key}", replace(case, written=changed))


def _of_type(case: Case, layer: Layer) -> Iterator[Planted]:
    for pair in (each for each in CONFUSED if layer.type in each and len(layer.outputs) == 1):
        other = pair[1 - pair.index(layer.type)]
        changed = _changed(case.topology, replace(layer, type=other))
        if changed is not None:
            yield Planted(layer.name, f"{layer.type} is {other}", replace(case, written=changed))


def _of_weights(case: Case, layer: Layer) -> Iterator[Planted]:
    """Change the weights of a layer as wrong conversions do."""
    for part in layer.weights:
        name = f"{layer.name}.{part}"
        right = case.weights[name]
        wrong = {"0": np.zeros_like(right), "reversed": right[::-1].copy()}
        if right.ndim == 4:
            wrong |= {"rotated": right[:, :, ::-1, ::-1].copy(), "channels": right[:, ::-1].copy()}
            if right.shape[2] == right.shape[3]:
                wrong["transposed"] = right.swapaxes(2, 3).copy()
            if right.shape[0] == right.shape[1]:
                wrong["exchanged"] = right.swapaxes(0, 1).copy()
        if part in STATISTICS:
            wrong = {"statistics": right * 1.5}
        for kind, value in wrong.items():
            if not np.array_equal(value, right):
                yield Planted(layer.name, f"{part} {kind}", replace(case, own={**case.weights, name: value}))


def _changed(topology: Topology, layer: Layer) -> Topology | None:
    """Return the topology with one layer in the place of that of its name; None if it does not fit or shapes change."""
    description = topology.to_json()
    for node in description["layers"]:
        if node["name"] == layer.name:
            node.update(type=layer.type, parameters=dict(layer.parameters))
    try:
        changed = Topology.of(topology.source, topology.kind, description)
        same = changed.shapes == topology.shapes and changed.weights == topology.weights
        return changed if same and changed != topology else None
    except (ModelError, KeyError, TypeError, ValueError, IndexError):
        return None
