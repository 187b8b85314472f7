"""A described network in float64: forward, layer by layer, and backward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from multiseg.reference import elementwise, linear, normalisation, pooling, shaping
from multiseg.reference.bounded import Array, Bounded, exact, total
from multiseg.reference.rule import Given, NotComputable, Pull, Rule
from multiseg.topology import Layer, Topology
from multiseg.topology.vocabulary import axis_index

__all__ = ["NotComputable", "Trace", "backward", "compute", "forward", "weights_of"]


def _reduce(given: Given) -> tuple[list[Bounded], Pull]:
    shape, said = given.inputs[0].value.shape, given.said
    axes = tuple(sorted({1 + axis_index(axis, shape[1:]) for axis in said["axes"]}))
    return linear.reduce(given, given.layer.type == "ReduceMean", axes, bool(said["keepdims"]))


def _elementwise(given: Given) -> tuple[list[Bounded], Pull]:
    if len(given.inputs) == 1 and "value" in given.said:
        return elementwise.constant(given)
    several = {"Mul": elementwise.product, "Div": elementwise.quotient, "Max": pooling.maximum}
    return several.get(given.layer.type, elementwise.weighted_sum)(given)


def _dropout(given: Given) -> tuple[list[Bounded], Pull]:
    if given.training and given.said["ratio"] > 0:
        raise NotComputable(f"{given.layer.name} draws numbers of its own in training")
    return shaping.nothing(given)


RULES: dict[str, Rule] = {
    "Conv": linear.conv,
    "ConvTranspose": linear.conv_transpose,
    "Gemm": linear.gemm,
    "Scale": linear.scale,
    "AveragePool": linear.average_pool,
    "GlobalAveragePool": lambda given: linear.reduce(given, True, (2, 3), True),
    "Resize": linear.resize,
    "MaxPool": pooling.max_pool,
    "GlobalMaxPool": pooling.global_max_pool,
    "BatchNormalization": normalisation.batch_norm,
    "LRN": normalisation.lrn,
    "PRelu": elementwise.prelu,
    "Concat": shaping.concat,
    "Split": shaping.split,
    "Transpose": shaping.transpose,
    "Pad": shaping.pad,
    "Dropout": _dropout,
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), normalisation.softmax),
    **dict.fromkeys(("Flatten", "Reshape", "Squeeze"), shaping.reshape),
    **dict.fromkeys(("Slice", "Crop"), shaping.cut),
    **dict.fromkeys(("Sum", "Add", "Sub", "Mul", "Div", "Max"), _elementwise),
    **dict.fromkeys(elementwise.FUNCTIONS, elementwise.unary),
}


@dataclass(frozen=True)
class Trace:
    """A forward pass. ``made``: what each layer makes of what it was given, by the names of values; ``values``: what was handed
    on; ``pulls`` take gradients back."""

    topology: Topology
    made: dict[str, Bounded] = field(default_factory=dict)
    values: dict[str, Bounded] = field(default_factory=dict)
    pulls: list[tuple[Layer, Pull]] = field(default_factory=list)

    @property
    def output(self) -> Bounded:
        """Of the network."""
        return self.values[self.topology.outputs[0]]


def forward(
    topology: Topology, weights: Mapping[str, Array], images: Array, given: Mapping[str, Array] | None = None,
    training: bool = False,
) -> Trace:  # fmt: skip
    """Compute every layer for images (N, C, H, W), which are exact.

    ``given`` are values that a framework made: each layer is computed from those it was given there, taken as exact, so that its
    result's bound is of that layer alone. What is not given is handed on as computed, with its bound. ``training``: normalise
    by the batch. Raises NotComputable for a type beyond the vocabulary that is not given.
    """
    given = given or {}
    trace = Trace(topology)
    trace.values[topology.input] = exact(images)
    for layer in topology.layers:
        inputs = [trace.values[name] for name in layer.inputs]
        if layer.type not in RULES and all(name in given for name in layer.outputs):
            made, pull = [exact(given[name]) for name in layer.outputs], _no_gradient(layer)
        else:
            made, pull = compute(layer, inputs, weights_of(layer, weights), training)
        trace.pulls.append((layer, pull))
        for name, value in zip(layer.outputs, made, strict=True):
            trace.made[name] = value
            trace.values[name] = exact(given[name]) if name in given else value
    return trace


def compute(
    layer: Layer, inputs: list[Bounded], weights: Mapping[str, Array], training: bool = False
) -> tuple[list[Bounded], Pull]:
    """One layer's outputs, and how gradients go back through it. Raises NotComputable."""
    if layer.type not in RULES:
        raise NotComputable(f"{layer.name} is a {layer.type}, which the reference does not compute")
    return RULES[layer.type](Given(layer, inputs, weights, training))


def _no_gradient(layer: Layer) -> Pull:
    def stop(gradients: list[Bounded]) -> tuple[list[Bounded], dict[str, Bounded]]:
        raise NotComputable(f"{layer.name} is a {layer.type}, whose gradient the reference does not compute")

    return stop


def weights_of(layer: Layer, weights: Mapping[str, Array]) -> dict[str, Array]:
    """A layer's weights by their part."""
    return {part: weights[f"{layer.name}.{part}"] for part in layer.weights}


def backward(trace: Trace, gradient: Bounded) -> dict[str, Bounded]:
    """Gradients of every parameter, given that of the output; those from the layers nearest to the output first.

    Raises NotComputable where a layer's cannot be computed.
    """
    arrived: dict[str, list[Bounded]] = {trace.topology.outputs[0]: [gradient]}
    found: dict[str, Bounded] = {}
    needed = _needed(trace.topology)
    for layer, pull in reversed(trace.pulls):
        if not any(name in arrived for name in layer.outputs):
            continue
        given = [
            total(arrived.pop(name)) if name in arrived else Bounded(np.zeros_like(trace.values[name].value))
            for name in layer.outputs
        ]
        inputs, weights = pull(given)
        for part, value in weights.items():
            name = f"{layer.name}.{part}"
            found[name] = total([found[name], value]) if name in found else value
        for name, value in zip(layer.inputs, inputs, strict=True):
            if name in needed:
                arrived.setdefault(name, []).append(value)
    return found


def _needed(topology: Topology) -> set[str]:
    """Values on which a layer with weights has an influence: gradients of others lead to no parameter."""
    found: set[str] = set()
    for layer in topology.layers:
        if layer.weights or any(name in found for name in layer.inputs):
            found.update(layer.outputs)
    return found
