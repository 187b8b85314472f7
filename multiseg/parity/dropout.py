"""Training with dropout: the factors that a framework draws, judged on their own, and given to the float64 reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from multiseg.parity.plan import ParityBatch
from multiseg.parity.rows import ParityRow
from multiseg.parity.side import ParitySide, flattened
from multiseg.parity.twin import STOCHASTIC
from multiseg.reference.bounded import Array, Bounded, result_error
from multiseg.topology import Layer, Topology

STAGE = "dropout"
STEPS = 2  # training steps that are compared with dropout
SLACK = 2.0**-22  # of a factor, 1 / (1 - ratio) in float32: of the ratio, of 1 - ratio and of the quotient
UNLIKELY = 35.0  # a share of zeros is wrong if its probability is below 2 exp(-UNLIKELY), 1e-15


@dataclass(frozen=True)
class Drawn:
    """What the dropouts of one training step multiply by, by the names of values, and the outputs of layers in this step.

    ``topology`` is the network with these factors as further inputs instead of the dropouts.
    """

    topology: Topology
    factors: Mapping[str, Array]
    values: Mapping[str, Array]


def stochastic(topology: Topology) -> list[Layer]:
    """Return the layers that draw random numbers in training."""
    return [layer for layer in topology.layers if layer.type in STOCHASTIC and layer.parameters.get("ratio", 0.5) > 0]


def draw(side: ParitySide, batch: ParityBatch, seed: int) -> tuple[dict[str, Array], dict[str, Array]] | None:
    """Return the factors that a framework draws in a training step with ``seed``, by the reference's layers; None if unknown.

    They are (N, C, H, W) or (N, C), where sizes of 1 may stand for whole axes. A layer that the framework has and the reference
    has not keeps its own name. Also returns the outputs of the layers in this step.
    """
    made = side.worker.call(
        "training_values",
        features=side.layout.features(batch.features),
        labels=side.layout.labels(batch.labels),
        seed=seed,
    )
    if made is None:
        return None
    drawn_there, values = made
    names, own = _names(side, list(drawn_there)), {layer.name: layer for layer in side.topology.layers}
    factors = {}
    for name, value in drawn_there.items():
        neutral = side.layout.activation(value)
        if name in own:
            neutral = side.in_reference_order(own[name].outputs[0], neutral)
        factors[names.get(name, name)] = neutral
    return factors, side.reference_values(values)


def _names(side: ParitySide, own: list[str]) -> dict[str, str]:
    """Return the reference's names of a file's dropouts: by their places in equal networks, else by name, else in order."""
    nodes, others = side.topology.canonical.nodes, side.reference.canonical.nodes
    if side.topology == side.reference:
        return {node.layer.name: other.layer.name for node, other in zip(nodes, others, strict=True)}
    names = [layer.name for layer in stochastic(side.reference)]  # such as of a file written from the reference
    others_own, others_names = (
        [name for name in one if name not in other] for one, other in ((own, names), (names, own))
    )
    return {name: name for name in own if name in names} | dict(zip(others_own, others_names, strict=False))


def rows(
    side: str, topology: Topology, factors: Mapping[str, Array], step: int | None = None
) -> list[ParityRow]:  # fmt: skip
    """Return a row for each dropout: whether its factors are 0 or 1 / (1 - ratio), and as many 0 as the ratio allows."""
    layers = stochastic(topology)
    found = [_row(side, layer, factors.get(layer.name), step) for layer in layers]
    known = {layer.name for layer in layers}
    return found + [
        ParityRow.wrong(side, STAGE, name, "drops values, where the reference has no dropout", step)
        for name in factors
        if name not in known
    ]


def _row(side: str, layer: Layer, factors: Array | None, step: int | None) -> ParityRow:
    if factors is None:
        return ParityRow.wrong(side, STAGE, layer.name, "is missing: nothing is dropped there in training", step)
    shape = layer.shapes[0]
    if factors.ndim != len(shape) + 1 or any(
        size not in (1, whole) for size, whole in zip(factors.shape[1:], shape, strict=True)
    ):
        return ParityRow.wrong(side, STAGE, layer.name, f"has the shape {factors.shape[1:]}, not {shape}", step)
    ratio = float(layer.parameters.get("ratio", 0.5))
    kept = 0.0 if ratio == 1 else 1 / (1 - ratio)
    expected = np.where(factors > kept / 2, kept, 0.0)
    row = ParityRow.of(
        side, STAGE, layer.name, Bounded(expected, expected * max(SLACK, result_error(3))), factors, step
    )
    words = None if row.ok else _words_of_values(factors, kept)
    if row.ok:
        share, words = _share(layer, factors, ratio)
        row = replace(row, share=max(row.share, share))
    return replace(row, words=words) if words else row


def _words_of_values(factors: Array, kept: float) -> str:
    values = np.unique(factors)
    if values.tolist() == [1]:
        return f"it drops nothing in training: its factors are 1 instead of 0 and {kept:.6g}"
    text = ", ".join(f"{value:.6g}" for value in values[:4])
    return f"its factors are {text}{', ...' * (values.size > 4)} instead of 0 and {kept:.6g}"


def _share(layer: Layer, factors: Array, ratio: float) -> tuple[float, str | None]:
    """Return the share of the tolerance that the number of zeros uses, and words if it is beyond it.

    The probability of a share of zeros as far from the ratio is at most 2 exp(-n D), where D is the relative entropy of the two
    (Chernoff's bound, Hoeffding 1963, theorem 1).
    """
    dropped, pixels = factors == 0, int(np.prod(layer.shapes[0][1:]))
    by_channel = dropped.ndim == 4 and pixels > 1 and bool((dropped == dropped[:, :, :1, :1]).all())
    if layer.parameters.get("channelwise", False) and dropped.ndim == 4:
        if pixels > 1 and not by_channel:
            return math.inf, "drops elements, not whole channels"
        dropped = dropped[:, :, :1, :1]
    elif by_channel and 0 < dropped.mean() < 1:
        chance = dropped[:, :, 0, 0].size * math.log(ratio**pixels + (1 - ratio) ** pixels)
        if chance < -UNLIKELY:
            return math.inf, "drops whole channels, not elements"
    count, part = dropped.size, float(dropped.mean())
    distance = count * _entropy(part, ratio)
    if distance <= UNLIKELY:
        return distance / UNLIKELY, None
    return distance / UNLIKELY, f"drops {part:.4g} of {count:,} values; the ratio is {ratio:g}"


def _entropy(share: float, ratio: float) -> float:
    """Return the relative entropy of two probabilities of the same event, in nats."""
    pairs = ((share, ratio), (1 - share, 1 - ratio))
    return sum(p * math.log(p / q) if q else math.inf for p, q in pairs if p)


def drawn(topology: Topology, factors: Mapping[str, Array], values: Mapping[str, Array]) -> list[Drawn]:
    """Return the network with these factors instead of its dropouts: in the ways that the framework's order allows.

    A flattened image may have its channels last in the framework, see multiseg.parity.side.
    """
    layers, inputs = [], dict(topology.more_inputs)
    whole: dict[str, Array] = {}
    for layer in topology.layers:
        if layer.name in factors:
            name = f"factors of {layer.name}"
            shape = layer.shapes[0]
            whole[name] = np.broadcast_to(factors[layer.name], (len(factors[layer.name]), *shape))
            inputs[name] = shape
            layer = replace(layer, type="Mul", inputs=(*layer.inputs, name), parameters={})
        layers.append(layer)
    network = replace(topology, layers=tuple(layers), more_inputs=inputs)
    moved = {name: _channels_first(value, topology, name) for name, value in whole.items()}
    several = any(moved[name] is not value for name, value in whole.items())
    return [Drawn(network, whole, values), *([Drawn(network, moved, values)] if several else [])]


def _channels_first(factors: Array, topology: Topology, name: str) -> Array:
    """Return the factors of a flattened image, of which the framework has the channels last, in the reference's order."""
    layers = {layer.outputs[0]: layer for layer in topology.layers}
    layer = next(layer for layer in topology.layers if f"factors of {layer.name}" == name)
    if layer.outputs[0] not in flattened(topology):
        return factors
    while len(shape := topology.shapes[layer.inputs[0]]) == 1:
        layer = layers[layer.inputs[0]]
    channels, height, width = shape
    if factors[0].size != channels * height * width:  # of a value that is computed from the flattened image
        return factors
    moved: Array = factors.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(factors.shape)
    return moved
