"""Compare what onnxruntime computes for each layer of a written network with float64, from the inputs that the layer had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg import reference
from multiseg.errors import ModelError
from multiseg.reference.network import RULES
from multiseg.topology import Layer, Topology
from multiseg.topology.vocabulary import types
from multiseg.topology.words import listed

# Multiply-adds for an image up to which float64 computes the layers within about ten seconds and 3 GB.
LARGEST = 1e10

KEEPS_VALUES = types(lambda row: row.keeps_values)
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Compared:
    """The layers of a written network that were compared with float64, and a reason for each of the others."""

    layers: tuple[str, ...]
    left_out: Mapping[str, str]

    def __str__(self) -> str:
        total = len(self.layers) + len(self.left_out)
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(name)
        words = [f"{listed(names)}, {reason}" for reason, names in reasons.items()]
        return f"{len(self.layers)} of {total} layers compared with float64" + (
            f"; not compared: {'; '.join(words)}" if words else ""
        )


def further_values(topology: Topology) -> tuple[str, ...]:
    """Return the values that layers compute, without the network's outputs and the indices of poolings."""
    values = (value for layer in topology.leading for value in layer.outputs[: _count(layer.type, layer.outputs)])
    return tuple(value for value in values if value not in topology.outputs)


def _count(kind: str, outputs: Sequence[str]) -> int:
    return 1 if kind == "MaxPool" else len(outputs)


def compare(
    topology: Topology, weights: Mapping[str, Array], images: Sequence[Array], values: Mapping[str, Array]
) -> Compared:
    """Compare the ``values`` that onnxruntime computes of ``images``, an array for each input, with float64.

    Each layer is computed from the values that were its inputs in onnxruntime. Raises ModelError naming the first layer whose
    value differs by more than rounding can (multiseg.reference.bounded).
    """
    network = replace(topology, layers=topology.leading)
    names = [layer.name for layer in network.layers]
    if network.multiply_adds > LARGEST:
        reason = f"because the network has more than {LARGEST:.0e} multiply-adds for an image"
        return Compared((), dict.fromkeys(names, reason))
    missing = sorted(set(network.weights) - set(weights))
    if missing:
        return Compared((), dict.fromkeys(names, "because its weights have no names"))
    first, *more = images
    further = dict(zip(network.more_inputs, more, strict=True))
    try:
        with np.errstate(all="ignore"):
            trace = reference.forward(network, weights, first, values, more_images=further)
    except reference.NotComputable as error:
        return Compared((), dict.fromkeys(names, f"because {error}"))
    compared, left_out = [], {}
    for layer in network.layers:
        present = [name for name in layer.outputs if name in values]
        if layer.type not in RULES or not present:
            left_out[layer.name] = _reason(layer)
            continue
        compared.append(layer.name)
        for name in present:
            share, difference, bound = trace.computed[name].nearest(values[name])
            if not share <= 1:
                terms = trace.computed[name].terms
                sums = f"rounding in sums of {terms:,} terms" if terms > 1 else "rounding"
                raise ModelError(
                    f"{topology.source}: layer {layer.name!r} is the first that onnxruntime computes otherwise than float64 "
                    f"does: by {difference:.3g}, {share:.3g} times what {sums} allows ({bound:.2g}); the file is not written"
                )
    return Compared(tuple(compared), left_out)


def _reason(layer: Layer) -> str:
    if layer.type not in RULES:
        return f"of the type {layer.type}"
    return "which keeps the tensor of its input" if layer.type in KEEPS_VALUES else "of which the file has no tensor"
