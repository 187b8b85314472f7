"""Explain a difference: try each common mistake, and name the one that reproduces the framework's result.

The mistakes are common in ports of networks: kernels in another axis order, colours in the reverse order, images in another
data order, a mean that is not subtracted, a missing bias or activation, another epsilon or padding, and solvers with
dampening, momentum or the rate at another position of the formula.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from multiseg import reference
from multiseg.reference.bounded import TINY, Array, Bounded
from multiseg.reference.network import compute, weights_of
from multiseg.reference.solvers import Solver
from multiseg.topology import Layer, Topology
from multiseg.topology.vocabulary import VOCABULARY, infer, types, window_pads

KEEPS_VALUES = types(lambda row: row.keeps_values)
Weights = Mapping[str, Array]
Try = tuple[str, Layer, "list[Bounded]", Weights]


def of_weights(topology: Topology, name: str, expected: Array, weights: Array) -> str | None:
    """Describe how weights differ from the expected ones, None if no common mistake explains it."""
    if weights.shape == expected.shape and not weights.any():
        return "they are all 0"
    for words, other in _rearranged(topology, name, expected):
        if other.shape == weights.shape and np.array_equal(other, weights):
            return f"they are the reference's {words}"
    return None


def of_layer(
    trace: reference.Trace, layer: Layer, shown: Collection[str], weights: Weights, framework_output: Array, mean: Any
) -> str | None:
    """Describe the mistake that reproduces the framework's output ``framework_output`` of a layer, None if no common one does.

    ``shown`` are the names of the values that the framework returned; the mistake may be in earlier layers whose values are
    not among them.
    """
    part = _unseen(trace.topology, layer, shown)
    for wrong in part:
        inputs = [trace.values[name] for name in wrong.inputs]
        for words, other, given, changed in _mistakes(trace.topology, wrong, inputs, weights_of(wrong, weights), mean):
            try:
                output = _through(trace, part, wrong, (other, given, changed), weights)
            except (reference.NotComputable, ValueError, KeyError, IndexError):
                continue
            if _agrees(output, framework_output):
                return f"it agrees {words}" + (f" in {wrong.name!r}" if wrong is not layer else "")
    return None


def _unseen(topology: Topology, layer: Layer, shown: Collection[str]) -> list[Layer]:
    """Return the layer, preceded by the chain of layers before it whose outputs are not in ``shown``."""
    producers = {name: each for each in topology.layers for name in each.outputs}
    chain, previous = [layer], producers.get(layer.inputs[0])
    while previous is not None and not any(name in shown for name in previous.outputs):
        chain.insert(0, previous)
        previous = producers.get(previous.inputs[0])
    return chain


def _through(
    trace: reference.Trace,
    part: list[Layer],
    wrong: Layer,
    instead: tuple[Layer, list[Bounded], Weights],
    weights: Weights,
) -> Bounded:
    """Return the output of the last layer of ``part`` if ``wrong`` is replaced by ``instead``."""
    values = dict(trace.values)
    for layer in part[part.index(wrong) :]:
        other, inputs, own = layer, [values[name] for name in layer.inputs], weights_of(layer, weights)
        if layer is wrong:
            other, inputs, own = instead[0], instead[1], dict(instead[2])
        outputs, _ = compute(other, inputs, own)
        values.update(zip(layer.outputs, outputs, strict=True))
    return values[part[-1].outputs[0]]


def of_gradient(expected: Bounded, weights: Array, measured: Array) -> str | None:
    """Describe a gradient that is the expected one times a factor or plus weight decay, None if it is neither."""
    flat, flat_measured = expected.value.ravel(), measured.ravel()
    size = float(flat @ flat)
    if size and measured.shape == expected.value.shape:
        factor = float(f"{float(flat_measured @ flat) / size:.4g}")
        if factor and _agrees(Bounded(factor * expected.value, abs(factor) * expected.bound), measured):
            return f"it is {factor:g} times what it should be"
        decay = float(
            f"{float((flat_measured - flat) @ weights.ravel()) / max(float(weights.ravel() @ weights.ravel()), TINY):.3g}"
        )
        if _agrees(Bounded(expected.value + decay * weights, expected.bound), measured):
            return f"it agrees with weight decay {decay:g}"
    return None


def of_use(uses: Mapping[str, Bounded], measured: Array) -> str | None:
    """Describe a gradient that is that of one use of several, by layer, None if it is not."""
    if len(uses) > 1:
        for layer, value in uses.items():
            if _agrees(value, measured):
                return f"it is the gradient of its use in {layer!r} alone, of {len(uses)} uses"
    return None


def _agrees(expected: Bounded, measured: Array) -> bool:
    return expected.nearest(measured)[0] <= 1


def _mistakes(topology: Topology, layer: Layer, inputs: list[Bounded], weights: Weights, mean: Any) -> Iterator[Try]:
    identity = replace(layer, type="Identity", parameters={}, weights={})
    if inputs[0].value.shape[1:] == layer.shapes[0]:
        yield "if it is omitted", identity, inputs[:1], {}
    if "bias" in weights:
        yield "if its bias is 0", layer, inputs, {**weights, "bias": np.zeros_like(weights["bias"])}
    if topology.input in layer.inputs:
        for words, image in _other_images(inputs[0].value, mean):
            yield f"if the images are {words}", layer, [reference.exact(image), *inputs[1:]], weights
    for part, value in weights.items():
        for words, other in _rearranged(topology, f"{layer.name}.{part}", value):
            if other.shape == value.shape:
                yield f"with its {part} {words}", layer, inputs, {**weights, part: other}
    for words, parameters in _other_parameters(layer, inputs):
        try:
            shapes, _, _ = infer(layer.type, parameters, [each.value.shape[1:] for each in inputs])
        except ValueError:
            continue
        yield f"with {words}", replace(layer, parameters=parameters, shapes=tuple(shapes)), inputs, weights


def _rearranged(topology: Topology, name: str, value: Array) -> Iterator[tuple[str, Array]]:
    """Yield the weights as common wrong conversions arrange them."""
    layer = next((each for each in topology.layers if name.rpartition(".")[0] == each.name), None)
    if value.ndim == 4:
        yield "transposed (height and width exchanged)", value.swapaxes(2, 3)
        yield "turned by 180 degrees", value[:, :, ::-1, ::-1]
        yield "with inputs and outputs exchanged", value.swapaxes(0, 1)
        for axis, what in ((1, "inputs"), (0, "outputs")):
            if value.shape[axis] == 3:
                yield f"with its three {what} reversed (RGB for BGR)", np.flip(value, axis)
        yield "read as HWIO", value.ravel().reshape([value.shape[i] for i in (2, 3, 1, 0)]).transpose(3, 2, 0, 1)
        yield "written as HWIO", value.transpose(2, 3, 1, 0).ravel().reshape(value.shape)
    if value.ndim == 2:
        yield "transposed", value.T if value.shape[0] == value.shape[1] else value.ravel().reshape(value.shape[::-1]).T
        image = _flattened(topology, layer) if layer is not None else None
        if image is not None:
            channels, height, width = image
            hwc = value.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(value.shape)
            chw = value.reshape(-1, channels, height, width).transpose(0, 2, 3, 1).reshape(value.shape)
            yield "taking a flattened image as height, width, channels", chw
            yield "taking a flattened image as channels, height, width where it is height, width, channels", hwc


def _flattened(topology: Topology, layer: Layer) -> tuple[int, ...] | None:
    """Return the shape of the flattened image that a dense layer takes, None if its input is not one."""
    producers = {name: each for each in topology.layers for name in each.outputs}
    shapes, value = topology.shapes, layer.inputs[0]
    while value in producers and len(shapes[value]) == 1:
        layer_before = producers[value]
        if layer_before.type not in KEEPS_VALUES:
            return None
        value = layer_before.inputs[0]
    return shapes[value] if len(shapes[value]) == 3 else None


def _other_images(images: Array, mean: Any) -> Iterator[tuple[str, Array]]:
    if mean is not None:
        shaped = np.asarray(mean, np.float64).reshape(1, -1, *(np.shape(mean)[1:] or (1, 1)))
        yield "taken without the mean subtracted", images + shaped
        yield "taken with the mean subtracted twice", images - shaped
    if images.shape[1] == 3:
        yield "taken in BGR for RGB, or RGB for BGR", images[:, ::-1]
    yield "read as CHW where they are HWC", images.transpose(0, 2, 3, 1).reshape(images.shape)
    count, channels, height, width = images.shape
    yield "read as HWC where they are CHW", images.reshape(count, height, width, channels).transpose(0, 3, 1, 2)
    yield "divided by 255", images / 255
    yield "transposed (height and width exchanged)", images.swapaxes(2, 3)


def _other_parameters(layer: Layer, inputs: list[Bounded]) -> Iterator[tuple[str, dict[str, Any]]]:
    row = VOCABULARY.get(layer.type)
    if row is None:
        return
    own, complete = dict(layer.parameters), row.complete(layer.parameters)
    for key, values in row.alternatives.items():
        for value in values:
            if value != complete[key]:
                yield f"{key} {value:g} (here {complete[key]:g})", {**own, key: value}
    if layer.type == "LRN":
        size = own["size"]
        for factor, words in ((size, "not divided by the size"), (1 / size, "divided by the size twice")):
            yield f"alpha {words}", {**own, "alpha": complete["alpha"] * factor}
    if "count_include_pad" in row.parameters:
        other = not own.get("count_include_pad")
        yield f"padding {'counted' if other else 'not counted'} in its averages", {**own, "count_include_pad": other}
    if "ceil_mode" in row.parameters:
        other = not own.get("ceil_mode")
        yield f"sizes rounded {'up' if other else 'down'}", {**own, "ceil_mode": other}
    if "kernel_shape" in row.parameters:
        yield from _other_windows(layer, inputs, own)


def _other_windows(
    layer: Layer, inputs: list[Bounded], parameters: dict[str, Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    size = inputs[0].value.shape[2:] if layer.type != "ConvTranspose" else layer.shapes[0][1:]
    top, left, bottom, right = window_pads(parameters, size)
    without_auto_pad = {key: value for key, value in parameters.items() if key != "auto_pad"}
    for pads in ([bottom, right, top, left], [top + bottom, left + right, 0, 0], [0, 0, top + bottom, left + right]):
        if pads != [top, left, bottom, right]:
            yield f"padding (top, left, bottom, right) {tuple(pads)}", {**without_auto_pad, "pads": pads}
    for stride in (1, 2, 3, 4):
        if tuple(parameters.get("strides", (1, 1))) != (stride, stride):
            yield f"stride {stride}", {**parameters, "strides": [stride, stride]}
    if tuple(parameters.get("dilations", (1, 1))) != (1, 1):
        yield "no dilation", {**parameters, "dilations": [1, 1]}


def of_step(
    solver: Solver, weights: Weights, gradients: Mapping[str, Bounded], rate: float, name: str, after: Array
) -> str | None:
    """Describe the variant of the update rule that reproduces the weights ``after``, None if no common one does.

    ``solver`` has the state before the step.
    """
    if np.array_equal(weights[name], after):
        return "it does not change at all"
    for words, other, gradient, at_rate in _other_updates(solver, gradients[name], rate, name):
        expected = other.step({name: weights[name]}, {name: gradient}, at_rate)[name]
        if _agrees(expected, after):
            return f"it agrees {words}"
    return None


def _other_updates(solver: Solver, g: Bounded, rate: float, name: str) -> Iterator[tuple[str, Solver, Bounded, float]]:
    def other(kind: str = solver.name, **options: float) -> Solver:
        changed = solver.copy()
        changed.name, changed.options = kind, {**solver.options, **options}
        return changed

    settings, t = solver.options, solver.steps + 1
    momentum = settings.get("momentum", 0.0)
    if solver.name in ("sgd", "nesterov"):
        damped = Bounded(g.value * (1 - momentum), g.bound * (1 - momentum))
        yield f"with dampening {momentum:g}, as its momentum is", other(), damped, rate
        yield "without momentum", other(momentum=0.0), g, rate
        kind = "nesterov" if solver.name == "sgd" else "sgd"
        yield f"with the rule of {kind}", other(kind), g, rate
        if solver.last_rate and name in solver.state:
            within = other()
            within.state[name] = [Bounded(s.value * solver.last_rate / rate, s.bound * 2) for s in solver.state[name]]
            yield "with the rate kept within the momentum, as Caffe does", within, g, rate
        for value in (0.5, 0.8, 0.95, 0.99):
            if value != momentum:
                yield f"with momentum {value:g} (here {momentum:g})", other(momentum=value), g, rate
    if solver.name == "adam":
        root = (1 - settings["momentum2"] ** t) ** 0.5
        yield "with delta beside the corrected root, as in PyTorch", other(delta=settings["delta"] * root), g, rate
        yield "without bias correction", other(), g, rate * (1 - momentum**t) / root
    yield from ((words, changed, g, rate) for words, changed in _other_decays(solver, name))
    if solver.last_rate and solver.last_rate != rate:
        yield "with the rate of the step before", other(), g, solver.last_rate
    if settings.get("weight_decay"):
        yield "without weight decay", other(weight_decay=0.0), g, rate
    for delta in (1e-3, 1e-7, 1e-8, 1e-10):
        if "delta" in settings and settings["delta"] != delta:
            yield f"with delta {delta:g} (here {settings['delta']:g})", other(delta=delta), g, rate
    for decay in (1e-4, 5e-4, 1e-2, rate / 100):
        if not settings.get("weight_decay"):
            yield f"with weight decay {decay:.3g}", other(weight_decay=decay), g, rate
    for factor in (2, 0.1, 10):
        yield f"with a multiplier of {factor:g} of its learning rate", other(), g, rate * factor


DECAYS = {"momentum": (0.5, 0.8, 0.95, 0.99), "momentum2": (0.9, 0.99, 0.9999), "rms_decay": (0.9, 0.95, 0.999)}
# the state array of each solver that an option decays; that of the others is a sum
DECAYED = {"rmsprop": {"rms_decay": 0}, "adadelta": {"momentum": 0}, "adam": {"momentum": 0, "momentum2": 1}}


def _other_decays(solver: Solver, name: str) -> Iterator[tuple[str, Solver]]:
    """Yield solvers whose averages have another decay; the state of one step before has it, too."""
    for key, place in DECAYED.get(solver.name, {}).items():
        right = solver.options[key]
        for value in DECAYS[key]:
            if value == right or solver.steps > 1:
                continue
            changed = solver.copy()
            changed.options = {**solver.options, key: value}
            if name in changed.state:
                scale, state = (1 - value) / (1 - right), changed.state[name][place]
                changed.state[name][place] = Bounded(state.value * scale, np.asarray(state.bound) * scale)
            yield f"with {key} {value:g} (here {right:g})", changed
