"""Compute a described network in float64: forward, layer by layer, and backward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from multiseg.reference import elementwise, linear, normalisation, pooling, shaping
from multiseg.reference.bounded import Array, Bounded, exact, total
from multiseg.reference.rule import LayerCall, NotComputable, Pull, Rule
from multiseg.topology import Layer, Topology
from multiseg.topology.vocabulary import axis_index

__all__ = ["NotComputable", "Trace", "backward", "backward_by_use", "compute", "forward", "weights_of"]


def _reduce(call: LayerCall) -> tuple[list[Bounded], Pull]:
    shape, parameters = call.inputs[0].value.shape, call.parameters
    axes = tuple(sorted({1 + axis_index(axis, shape[1:]) for axis in parameters["axes"]}))
    return linear.reduce(call, call.layer.type == "ReduceMean", axes, bool(parameters["keepdims"]))


def _elementwise(call: LayerCall) -> tuple[list[Bounded], Pull]:
    if len(call.inputs) == 1 and "value" in call.parameters:
        return elementwise.constant(call)
    several = {"Mul": elementwise.product, "Div": elementwise.quotient, "Max": pooling.maximum}
    return several.get(call.layer.type, elementwise.weighted_sum)(call)


def _dropout(call: LayerCall) -> tuple[list[Bounded], Pull]:
    if call.training and call.parameters["ratio"] > 0:
        raise NotComputable(f"{call.layer.name} draws random numbers in training")
    return shaping.nothing(call)


RULES: dict[str, Rule] = {
    "Conv": linear.conv,
    "ConvTranspose": linear.conv_transpose,
    "Gemm": linear.gemm,
    "Scale": linear.scale,
    "AveragePool": linear.average_pool,
    "GlobalAveragePool": lambda call: linear.reduce(call, True, (2, 3), True),
    "Resize": linear.resize,
    "MaxPool": pooling.max_pool,
    "MaxUnpool": pooling.max_unpool,
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
    """A forward pass.

    ``computed``: the outputs of all layers, by the names of values; ``values``: the same, replaced by the framework's values
    where available, which are the inputs of the layers after them; ``pulls``: functions that propagate gradients back.
    """

    topology: Topology
    computed: dict[str, Bounded] = field(default_factory=dict)
    values: dict[str, Bounded] = field(default_factory=dict)
    pulls: list[tuple[Layer, Pull]] = field(default_factory=list)

    @property
    def output(self) -> Bounded:
        """The first output of the network; others are in ``values``."""
        return self.values[self.topology.outputs[0]]


def forward(
    topology: Topology, weights: Mapping[str, Array], images: Array, given: Mapping[str, Array] | None = None,
    training: bool = False, more_images: Mapping[str, Array] | None = None,
) -> Trace:  # fmt: skip
    """Compute each layer for images (N, C, H, W), which are taken as exact; ``more_images`` are those of further inputs.

    ``given`` are outputs of layers in a framework, by the names of values. They are taken as the exact inputs of the layers
    after them, so that the bound of a result covers that layer alone. Other values are passed on as computed, with their
    bounds. ``training``: normalise by batch statistics. Raises NotComputable for a type beyond the vocabulary whose outputs are
    not in ``given``.
    """
    given = given or {}
    trace = Trace(topology)
    for name, array in {topology.input: images, **(more_images or {})}.items():
        trace.values[name] = exact(array)
    for layer in topology.layers:
        inputs = [trace.values[name] for name in layer.inputs]
        if layer.type not in RULES and all(name in given for name in layer.outputs):
            outputs, pull = [exact(given[name]) for name in layer.outputs], _no_gradient(layer)
        else:
            outputs, pull = compute(layer, inputs, weights_of(layer, weights), training)
        trace.pulls.append((layer, pull))
        for name, value in zip(layer.outputs, outputs, strict=True):
            trace.computed[name] = value
            trace.values[name] = exact(given[name]) if name in given else value
    return trace


def compute(
    layer: Layer, inputs: list[Bounded], weights: Mapping[str, Array], training: bool = False
) -> tuple[list[Bounded], Pull]:
    """Return the outputs of a layer and its gradient function. Raises NotComputable for a type beyond the vocabulary."""
    if layer.type not in RULES:
        raise NotComputable(f"{layer.name} is a {layer.type}, which the reference does not compute")
    return RULES[layer.type](LayerCall(layer, inputs, weights, training))


def _no_gradient(layer: Layer) -> Pull:
    def stop(gradients: list[Bounded]) -> tuple[list[Bounded], dict[str, Bounded]]:
        raise NotComputable(f"{layer.name} is a {layer.type}, whose gradient the reference does not compute")

    return stop


def weights_of(layer: Layer, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return the weights of a layer by part."""
    return {part: weights[f"{layer.name}.{part}"] for part in layer.weights}


def backward(trace: Trace, gradient: Bounded) -> dict[str, Bounded]:
    """Return the gradient of each parameter for the ``gradient`` of the output, in the order from output to input.

    That of weights which are used several times is the sum over the uses; it has the first of their names.

    Raises NotComputable if the gradient of a layer cannot be computed.
    """
    return {name: total(list(uses.values())) for name, uses in backward_by_use(trace, gradient).items()}


def backward_by_use(trace: Trace, gradient: Bounded) -> dict[str, dict[str, Bounded]]:
    """Return the gradients of :func:`backward` before they are added: of each use, by the name of the layer's first output."""
    pending: dict[str, list[Bounded]] = {trace.topology.outputs[0]: [gradient]}
    gradients: dict[str, dict[str, Bounded]] = {}
    needed, owners = _needed(trace.topology), trace.topology.owners
    for layer, pull in reversed(trace.pulls):
        if not any(name in pending for name in layer.outputs):
            continue
        output_gradients = [
            total(pending.pop(name)) if name in pending else Bounded(np.zeros_like(trace.values[name].value))
            for name in layer.outputs
        ]
        inputs, weights = pull(output_gradients)
        for part, value in weights.items():
            name = f"{layer.name}.{part}"
            uses = gradients.setdefault(owners.get(name, name), {})
            use = layer.outputs[0]
            uses[use] = total([uses[use], value]) if use in uses else value
        for name, value in zip(layer.inputs, inputs, strict=True):
            if name in needed:
                pending.setdefault(name, []).append(value)
    return gradients


def _needed(topology: Topology) -> set[str]:
    """Return the values that depend on a layer with weights; gradients of other values are not needed."""
    dependent: set[str] = set()
    for layer in topology.layers:
        if layer.weights or any(name in dependent for name in layer.inputs):
            dependent.update(layer.outputs)
    return dependent
