"""Weights of a network that is fed its images' colours in the other order, RGB or BGR, and computes the same.

Values within the network are followed by the order of their channels. What works on each channel by itself (activations,
poolings, batch normalisation, sums) has one order for all that it reads and makes, and its own weights follow it; a convolution
or dense layer that reads another order has the inputs of its weights in it, and makes any order that is wanted of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from multiseg.errors import ModelError
from multiseg.topology import Layer, Shape, Topology
from multiseg.topology.shapes import axis_index

Array = npt.NDArray[np.float32]
Order = tuple[int, ...]  # where each channel, or feature, of a value is in the original

REVERSED: Order = (2, 1, 0)
MEND = 'convert with channels="keep", and give the network images in the order that it was trained with'
MIXING = ("Conv", "ConvTranspose", "Gemm")
CHANNELWISE = (
    "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "BatchNormalization", "Scale", "Dropout", "Relu",
    "Sigmoid", "Tanh", "Softplus", "Abs", "Exp", "Log", "Neg", "Sqrt", "Identity", "LeakyRelu", "Elu", "PRelu", "Pow",
    "ThresholdedRelu", "Clip", "Softmax", "LogSoftmax", "Sum", "Max", "Mul", "Add", "Sub", "Div", "Pad", "Resize", "Crop",
)  # fmt: skip


def swapped(topology: Topology, weights: Mapping[str, Array], input: bool, output: bool) -> dict[str, Array]:
    """All ``weights``, of the network that ``topology`` describes, changed so that it computes the same of images whose three
    channels are reversed (``input``), and reverses those that it makes (``output``).

    Weights that the topology does not know stay as they are, and so do networks whose images have not three channels. Raises
    ModelError naming the layer through which the order cannot be followed.
    """
    orders = _Orders(topology)
    ends = {topology.input: input, **dict.fromkeys(topology.outputs, output)}
    wanted = {value: REVERSED for value, reverse in ends.items() if reverse and _is_colours(topology.shapes[value])}
    if not wanted:
        return dict(weights)
    missing = next((name for name in _needed(topology) if name not in weights), None)
    if missing is not None:
        raise ModelError(
            f"{topology.source}: uses the weights of {missing!r} at several places, or has none for it; {MEND}"
        )
    for value, order in wanted.items():
        orders.put(value, order, f"{value!r}")
    for layer in reversed(topology.layers):
        _follow_back(layer, orders)
    known = -1
    while known != orders.known:  # what is joined later may have an order that earlier layers have to make
        known = orders.known
        for layer in topology.layers:
            _follow(layer, orders, {})
    found = dict(weights)
    for layer in topology.layers:
        _follow(layer, orders, found)
    for value in ends:
        if orders.of(value) != wanted.get(value):
            raise ModelError(
                f"{topology.source}: the channels of {value!r} would be reversed too, being joined with colours; {MEND}"
            )
    return found


def _needed(topology: Topology) -> list[str]:
    """Weights that lead to an output."""
    values, layers = set(topology.outputs), []
    for layer in reversed(topology.layers):
        if values.intersection(layer.outputs):
            values.update(layer.inputs)
            layers.append(layer)
    return [f"{layer.name}.{part}" for layer in reversed(layers) for part in layer.weights]


def evident(title: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The same where no network is known, but it is evident that one convolution reads three colours, or none does.

    Raises ModelError where it is not.
    """
    images = [name for name, value in weights.items() if value.ndim == 4]
    reading = [name for name in images if weights[name].shape[1] == 3]
    others = [name for name, value in weights.items() if value.shape[:1] == (3,) and name not in reading]
    if not images:  # a dense layer over a flattened image
        others += [name for name, value in weights.items() if value.ndim == 2 and value.shape[1] % 3 == 0]
    if not reading and not others:
        return dict(weights)
    if len(reading) != 1 or others or not _reads(reading[0], weights):
        raise ModelError(
            f"{title}: which of its weights meet the colours of images, whose order differs between the frameworks, cannot be "
            f"told: it may be {', '.join([*reading, *others])}; name the network file that they are of (source_network=FILE), "
            'or convert with channels="keep" where its images have no colours'
        )
    return {**weights, reading[0]: np.ascontiguousarray(np.take(weights[reading[0]], REVERSED, 1))}


def _reads(name: str, weights: Mapping[str, Array]) -> bool:
    """Whether weights with three in their second axis are a convolution's, which reads them: a deconvolution makes them."""
    outputs, bias = weights[name].shape[0], weights.get(f"{name.rpartition('.')[0]}.bias")
    return outputs != 3 and bias is not None and len(bias) == outputs


def _is_colours(shape: Shape) -> bool:
    return len(shape) == 3 and shape[0] == 3


class _Orders:
    """The order of every value's channels; values that channelwise layers join have one together."""

    def __init__(self, topology: Topology) -> None:
        self.source = topology.source
        self.shapes = topology.shapes
        self._joined: dict[str, str] = {}
        self._known: dict[str, Order] = {}
        for layer in topology.layers:
            joined = (*layer.inputs[: 1 if layer.type == "Crop" else None], *layer.outputs)
            if _by_channel(layer, self.shapes):
                for value in joined:
                    self._joined[self._root(value)] = self._root(joined[0])

    @property
    def known(self) -> int:
        """How many orders there are that are not the original's."""
        return len(self._known)

    def of(self, value: str) -> Order | None:
        """The order of a value; None where it is the original's."""
        return self._known.get(self._root(value))

    def put(self, value: str, order: Order | None, where: str) -> None:
        """Let a value have this order. Raises ModelError where it has another."""
        plain = order is None or order == tuple(range(len(order)))
        known = self.of(value)
        if plain and known is None:
            return
        if known is not None and known != order:
            raise ModelError(
                f"{self.source}: {where} has colours in an order that what it is joined with has not; {MEND}"
            )
        assert order is not None
        self._known[self._root(value)] = order

    def _root(self, value: str) -> str:
        while self._joined.get(value, value) != value:
            value = self._joined[value]
        return value


def _by_channel(layer: Layer, shapes: Mapping[str, Shape]) -> bool:
    """Whether each channel of what it makes is made of the same one of what it reads."""
    first = shapes[layer.inputs[0]]
    if layer.type in ("Conv", "ConvTranspose"):  # each channel its own filter
        return bool(first[0] == layer.parameters.get("group", 1) == layer.parameters["num_output"] > 1)
    if layer.type == "Crop":
        return axis_index(layer.parameters["axis"], first) > 0
    if layer.type in ("Slice", "Split", "Concat", "ReduceMean", "ReduceSum"):
        axes = layer.parameters.get("axes") or [layer.parameters["axis"]]
        return 0 not in [axis_index(axis, first) for axis in axes]
    if layer.type == "Transpose":
        return bool(layer.parameters["perm"][:2] == [0, 1])
    if layer.type in ("Reshape", "Flatten", "Squeeze"):
        return bool(layer.shapes[0][:1] == first[:1])
    return layer.type in CHANNELWISE or layer.type == "LRN"


def _follow_back(layer: Layer, orders: _Orders) -> None:
    """A vector that becomes an image has the order of that."""
    made, before = orders.of(layer.outputs[0]), orders.shapes[layer.inputs[0]]
    if layer.type == "Reshape" and made is not None and len(before) == 1 and len(layer.shapes[0]) == 3:
        orders.put(layer.inputs[0], _flat(made, layer.shapes[0]), f"layer {layer.name!r} (Reshape)")


def _flat(order: Order, shape: Shape) -> Order:
    """The order of an image's channels as that of all its elements."""
    size = math.prod(shape[1:])
    return tuple(place * size + i for place in order for i in range(size))


def _follow(layer: Layer, orders: _Orders, weights: dict[str, Array]) -> None:
    """Give the layer's weights, and what it makes, their order."""
    given = [orders.of(value) for value in layer.inputs]
    first, made = given[0], orders.of(layer.outputs[0])
    if _by_channel(layer, orders.shapes):
        if first is not None:
            _check_lrn(layer, first, orders)
            for part, shape in layer.weights.items():
                if shape[0] == len(first):  # not a PRelu's one slope for all
                    _reorder(weights, f"{layer.name}.{part}", 0, first)
        return
    if layer.type in MIXING:
        _mix(layer, first, orders, weights)
    elif layer.type == "Concat":
        sizes = [orders.shapes[value][0] for value in layer.inputs]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        parts = [order or tuple(range(size)) for order, size in zip(given, sizes, strict=True)]
        joined = tuple(start + place for start, part in zip(starts, parts, strict=True) for place in part)
        orders.put(layer.outputs[0], joined, f"layer {layer.name!r} (Concat)")
    elif layer.type in ("Flatten", "Reshape", "Squeeze") and len(layer.shapes[0]) == 1 and first is not None:
        flat = _flat(first, orders.shapes[layer.inputs[0]])
        orders.put(layer.outputs[0], flat, f"layer {layer.name!r} ({layer.type})")
    elif layer.type == "Reshape" and len(layer.shapes[0]) == 3 and made is not None:
        if first != _flat(made, layer.shapes[0]):
            _refuse(layer, orders)
    elif layer.type in ("ReduceMean", "ReduceSum") and made is None:
        pass  # over all channels: their order does not matter
    elif any(order is not None for order in (*given, *map(orders.of, layer.outputs))):
        _refuse(layer, orders)


def _mix(layer: Layer, order: Order | None, orders: _Orders, weights: dict[str, Array]) -> None:
    """Of a layer that makes each channel of several."""
    made = orders.of(layer.outputs[0])
    group, outputs = layer.parameters.get("group", 1), layer.parameters["num_output"]
    if layer.type == "Conv" and order is not None and group == len(order):  # several filters for each channel
        each = outputs // group
        made = tuple(place * each + i for place in order for i in range(each))
        orders.put(layer.outputs[0], made, f"layer {layer.name!r} (Conv)")
        order = None
    elif layer.type != "Gemm" and group > 1 and (order is not None or made is not None):
        _refuse(layer, orders)
    axis_in, axis_out = (0, 1) if layer.type == "ConvTranspose" else (1, 0)
    if order is not None:
        _reorder(weights, f"{layer.name}.weight", axis_in, order)
    if made is not None:
        _reorder(weights, f"{layer.name}.weight", axis_out, made)
        if "bias" in layer.weights:
            _reorder(weights, f"{layer.name}.bias", 0, made)


def _reorder(weights: dict[str, Array], name: str, axis: int, order: Order) -> None:
    if name in weights:
        weights[name] = np.ascontiguousarray(np.take(weights[name], order, axis))


def _check_lrn(layer: Layer, order: Order, orders: _Orders) -> None:
    """Across channels it looks at neighbours: those are the same in a reversed order, as many on both sides."""
    across = layer.type == "LRN" and not layer.parameters.get("within_channel")
    if across and (order != tuple(reversed(range(len(order)))) or layer.parameters["size"] % 2 == 0):
        _refuse(layer, orders)


def _refuse(layer: Layer, orders: _Orders) -> NoReturn:
    raise ModelError(
        f"{orders.source}: cannot follow the order of the colours through layer {layer.name!r} ({layer.type}); {MEND}"
    )
