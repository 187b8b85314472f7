"""Variants of a network for comparing training: without dropout, and up to the scores that a cross entropy takes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from multiseg.reference import Trace
from multiseg.topology import Layer, Topology
from multiseg.topology.vocabulary import types

SOFTMAX = types(lambda row: row.category == "softmax")
STOCHASTIC = types(lambda row: row.stochastic)


def without_dropout(topology: Topology) -> tuple[Topology, list[str]]:
    """Return the network without dropout, which is random in training, and the names of the removed layers."""
    instead: dict[str, str] = {}
    layers: list[Layer] = []
    dropped = []
    for layer in topology.layers:
        inputs = tuple(instead.get(name, name) for name in layer.inputs)
        if layer.type in STOCHASTIC and layer.parameters.get("ratio", 0.5) > 0:
            instead[layer.outputs[0]] = inputs[0]
            dropped.append(layer.name)
        else:
            layers.append(replace(layer, inputs=inputs))
    outputs = tuple(instead.get(name, name) for name in topology.outputs)
    return (replace(topology, layers=tuple(layers), outputs=outputs), dropped) if dropped else (topology, [])


def last_soft(topology: Topology, types: Collection[str] = SOFTMAX) -> Layer | None:
    """Return the softmax or log-softmax that is the network's last layer, None if there is none."""
    return next(
        (layer for layer in topology.layers if topology.outputs[0] in layer.outputs and layer.type in types), None
    )


def scores_of(trace: Trace, binary: bool = False) -> Trace:
    """Return the forward pass up to the input of the network's last softmax, or with ``binary`` of its last sigmoid."""
    last = last_soft(trace.topology, ("Sigmoid",) if binary else SOFTMAX)
    if last is None:
        return trace
    layers = tuple(layer for layer in trace.topology.layers if layer is not last)
    topology = replace(trace.topology, layers=layers, outputs=last.inputs)
    return replace(trace, topology=topology, pulls=[(layer, pull) for layer, pull in trace.pulls if layer is not last])
