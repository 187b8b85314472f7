"""Reorder a network's weights for images with the opposite channel order (RGB or BGR), so that it computes the same.

The order of channels is propagated through the network. Layers that process each channel by itself (activations, pooling,
batch normalisation, sums) have one order for all their inputs and outputs, and their own weights are permuted with it. A
convolution or dense layer whose input is permuted has its weights permuted along the input axis, and can produce any order of
output channels by a permutation along the output axis.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from multiseg.backend import ChannelOrder
from multiseg.errors import ModelError, setting
from multiseg.topology import Layer, Shape, Topology
from multiseg.topology.vocabulary import VOCABULARY, axis_index

Array = npt.NDArray[np.float32]
Order = tuple[int, ...]  # index in the original of each channel, or feature, of a value

REVERSED: Order = (2, 1, 0)
KEEP = setting("channels", example='"keep"')  # as an argument in messages
REMEDY = f"convert with {KEEP}, and feed the network images in the channel order that it was trained with"


def swapped(topology: Topology, weights: Mapping[str, Array], input: bool, output: bool) -> dict[str, Array]:
    """Return ``weights`` of the network that ``topology`` describes, reordered for reversed channels.

    With ``input`` the network computes from images with their three channels reversed what it computed before; with ``output``
    the three channels of its output are reversed too. Weights that the topology does not contain are returned unchanged, and so
    are all weights if the images do not have three channels. Raises ModelError naming the layer through which the order of the
    channels cannot be followed.
    """
    wanted = _wanted(topology, input, output)
    if not any(wanted.values()):
        return dict(weights)
    owners = topology.owners
    arrays = {owners.get(name, name): value for name, value in weights.items()}
    missing = next((name for name in _needed(topology) if owners.get(name, name) not in arrays), None)
    if missing is not None:
        raise ModelError(
            f"{topology.source}: uses the weights {missing!r} in several places, or they are missing; {REMEDY}"
        )
    orders = _propagated(topology, wanted)
    permuted: dict[str, Array] = {}
    for layer in topology.layers:
        names = {
            f"{layer.name}.{part}": owners.get(f"{layer.name}.{part}", f"{layer.name}.{part}") for part in layer.weights
        }
        own = {name: arrays[array] for name, array in names.items() if array in arrays}
        _follow(layer, orders, own)
        for name, array in own.items():
            if not np.array_equal(permuted.setdefault(names[name], array), array, equal_nan=True):
                raise ModelError(
                    f"{topology.source}: layer {layer.name!r} shares the weights {names[name]!r}, but needs them in another "
                    f"order of colours; {REMEDY}"
                )
    for value, order in wanted.items():
        if orders.of(value) != order:
            raise ModelError(
                f"{topology.source}: the channels of {value!r} would be reversed too, as they are added to or concatenated with "
                f"colours; {REMEDY}"
            )
    return {name: permuted.get(owners.get(name, name), value) for name, value in weights.items()}


def orders_of_values(topology: Topology, input: bool, output: bool) -> dict[str, Order]:
    """Return the order of the channels of each value that is not in its original order after :func:`swapped`.

    Raises ModelError as :func:`swapped` does.
    """
    wanted = _wanted(topology, input, output)
    orders = _propagated(topology, wanted)
    found = {value: orders.of(value) for value in orders.shapes}
    return {value: order for value, order in found.items() if order is not None}


def _wanted(topology: Topology, input: bool, output: bool) -> dict[str, Order | None]:
    """Return the order of inputs and outputs: reversed where they are colours, else None."""
    ends = {**dict.fromkeys(topology.inputs, input), **dict.fromkeys(topology.outputs, output)}
    return {
        value: REVERSED if reverse and _is_colours(topology.shapes[value]) else None for value, reverse in ends.items()
    }


def _propagated(topology: Topology, wanted: Mapping[str, Order | None]) -> _Orders:
    """Return the orders of all values that follow from those of input and outputs."""
    orders = _Orders(topology)
    for value, order in wanted.items():
        if order is not None:
            orders.put(value, order, f"{value!r}")
    for layer in reversed(topology.layers):
        _follow_back(layer, orders)
    known = -1
    while known != orders.known:  # a value joined later may fix the order that an earlier layer has to produce
        known = orders.known
        for layer in topology.layers:
            _follow(layer, orders, {})
    return orders


def _needed(topology: Topology) -> list[str]:
    """Return the names of the weights that an output depends on."""
    values, layers = set(topology.outputs), []
    for layer in reversed(topology.layers):
        if values.intersection(layer.outputs):
            values.update(layer.inputs)
            layers.append(layer)
    return [f"{layer.name}.{part}" for layer in reversed(layers) for part in layer.weights]


def reordered(
    topology: Topology, weights: Mapping[str, Array], source: ChannelOrder | None, target: ChannelOrder | None,
    colours: tuple[bool, bool],
) -> dict[str, Array]:  # fmt: skip
    """Return weights that a network fed images in ``source``'s channel order has, for one fed images in ``target``'s.

    ``colours`` are whether the network's input and its output have colours. The weights are returned unchanged if the orders are
    the same or one of them is unknown. Raises ModelError as :func:`swapped` does.
    """
    if source is None or target is None or source == target:
        return dict(weights)
    return swapped(topology, weights, *colours)


def evident(title: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return the weights for reversed input channels if no network is known, judging by shapes alone.

    Exactly one convolution must have three input channels, or none. Raises ModelError if that is ambiguous.
    """
    kernels = [name for name, value in weights.items() if value.ndim == 4]
    reading = [name for name in kernels if weights[name].shape[1] == 3]
    others = [name for name, value in weights.items() if value.shape[:1] == (3,) and name not in reading]
    if not kernels:  # a dense layer over a flattened image
        others += [name for name, value in weights.items() if value.ndim == 2 and value.shape[1] % 3 == 0]
    if not reading and not others:
        return dict(weights)
    if len(reading) != 1 or others or not _reads(reading[0], weights):
        raise ModelError(
            f"{title}: cannot tell which weights take the colour channels of images, whose order differs between the frameworks: "
            f"candidates are {', '.join([*reading, *others])}; specify the network file of the weights "
            f"({setting('source_network', example='FILE')}), "
            f"or convert with {KEEP} if its images have no colours"
        )
    return {**weights, reading[0]: np.ascontiguousarray(np.take(weights[reading[0]], REVERSED, 1))}


def _reads(name: str, weights: Mapping[str, Array]) -> bool:
    """Whether weights with 3 on their second axis are a convolution's (3 inputs), not a deconvolution's (3 outputs)."""
    outputs, bias = weights[name].shape[0], weights.get(f"{name.rpartition('.')[0]}.bias")
    return outputs != 3 and bias is not None and len(bias) == outputs


def _is_colours(shape: Shape) -> bool:
    return len(shape) == 3 and shape[0] == 3


class _Orders:
    """The channel order of every value. Values that channelwise layers connect share one order."""

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
        """The number of values whose order is not the original."""
        return len(self._known)

    def of(self, value: str) -> Order | None:
        """Return the order of a value; None if it is the original."""
        return self._known.get(self._root(value))

    def put(self, value: str, order: Order | None, where: str) -> None:
        """Set the order of a value. Raises ModelError if it already has another one."""
        plain = order is None or order == tuple(range(len(order)))
        known = self.of(value)
        if plain and known is None:
            return
        if known is not None and known != order:
            raise ModelError(
                f"{self.source}: {where} has its channels in another order than the values that it is added to or concatenated "
                f"with; {REMEDY}"
            )
        assert order is not None
        self._known[self._root(value)] = order

    def _root(self, value: str) -> str:
        while self._joined.get(value, value) != value:
            value = self._joined[value]
        return value


def _by_channel(layer: Layer, shapes: Mapping[str, Shape]) -> bool:
    """Whether each output channel depends on the input channel of the same index alone."""
    first, channels = shapes[layer.inputs[0]], _channels(layer)
    if channels == "mixed":  # depthwise convolution
        return bool(first[0] == layer.parameters.get("group", 1) == layer.parameters["num_output"] > 1)
    if layer.type == "Crop":
        return axis_index(layer.parameters["axis"], first) > 0
    if channels == "axes":
        axes = layer.parameters.get("axes") or [layer.parameters["axis"]]
        return 0 not in [axis_index(axis, first) for axis in axes]
    if channels == "permuted":
        return bool(layer.parameters["perm"][:2] == [0, 1])
    if channels == "reshaped":
        return bool(layer.shapes[0][:1] == first[:1])
    return channels in ("same", "neighbours")


def _channels(layer: Layer) -> str | None:
    """How the vocabulary says that output channels follow from input channels; None for types beyond it."""
    return VOCABULARY[layer.type].channels if layer.type in VOCABULARY else None


def _follow_back(layer: Layer, orders: _Orders) -> None:
    """Propagate the order of an image back to the vector that is reshaped to it."""
    output_order, before = orders.of(layer.outputs[0]), orders.shapes[layer.inputs[0]]
    if layer.type == "Reshape" and output_order is not None and len(before) == 1 and len(layer.shapes[0]) == 3:
        orders.put(layer.inputs[0], _flat(output_order, layer.shapes[0]), f"layer {layer.name!r} (Reshape)")


def _flat(order: Order, shape: Shape) -> Order:
    """Return the order of the elements of a flattened image, from the order of its channels."""
    size = math.prod(shape[1:])
    return tuple(place * size + i for place in order for i in range(size))


def _follow(layer: Layer, orders: _Orders, weights: dict[str, Array]) -> None:
    """Propagate the order through a layer, permuting its weights."""
    inputs = [orders.of(value) for value in layer.inputs]
    first, output_order = inputs[0], orders.of(layer.outputs[0])
    if _by_channel(layer, orders.shapes):
        if first is not None:
            _check_lrn(layer, first, orders)
            for part, shape in layer.weights.items():
                if shape[0] == len(first):  # a PRelu may have a single slope
                    _reorder(weights, f"{layer.name}.{part}", 0, first)
        return
    if _channels(layer) == "mixed":
        _mix(layer, first, orders, weights)
    elif layer.type == "Concat":
        sizes = [orders.shapes[value][0] for value in layer.inputs]
        starts = [sum(sizes[:i]) for i in range(len(sizes))]
        parts = [order or tuple(range(size)) for order, size in zip(inputs, sizes, strict=True)]
        joined = tuple(start + place for start, part in zip(starts, parts, strict=True) for place in part)
        orders.put(layer.outputs[0], joined, f"layer {layer.name!r} (Concat)")
    elif _channels(layer) == "reshaped" and len(layer.shapes[0]) == 1 and first is not None:
        flat = _flat(first, orders.shapes[layer.inputs[0]])
        orders.put(layer.outputs[0], flat, f"layer {layer.name!r} ({layer.type})")
    elif layer.type == "Reshape" and len(layer.shapes[0]) == 3 and output_order is not None:
        if first != _flat(output_order, layer.shapes[0]):
            _refuse(layer, orders)
    elif layer.type in ("ReduceMean", "ReduceSum") and output_order is None:
        pass  # over all channels, whose order does not matter
    elif any(order is not None for order in (*inputs, *map(orders.of, layer.outputs))):
        _refuse(layer, orders)


def _mix(layer: Layer, order: Order | None, orders: _Orders, weights: dict[str, Array]) -> None:
    """Propagate the order through a layer whose output channels each depend on several input channels."""
    output_order = orders.of(layer.outputs[0])
    group, outputs = layer.parameters.get("group", 1), layer.parameters["num_output"]
    if layer.type == "Conv" and order is not None and group == len(order):  # depthwise with several filters per channel
        multiplier = outputs // group
        output_order = tuple(place * multiplier + i for place in order for i in range(multiplier))
        orders.put(layer.outputs[0], output_order, f"layer {layer.name!r} (Conv)")
        order = None
    elif layer.type != "Gemm" and group > 1 and (order is not None or output_order is not None):
        _refuse(layer, orders)
    axis_in, axis_out = (0, 1) if layer.type == "ConvTranspose" else (1, 0)
    if order is not None:
        _reorder(weights, f"{layer.name}.weight", axis_in, order)
    if output_order is not None:
        _reorder(weights, f"{layer.name}.weight", axis_out, output_order)
        if "bias" in layer.weights:
            _reorder(weights, f"{layer.name}.bias", 0, output_order)


def _reorder(weights: dict[str, Array], name: str, axis: int, order: Order) -> None:
    if name in weights:
        weights[name] = np.ascontiguousarray(np.take(weights[name], order, axis))


def _check_lrn(layer: Layer, order: Order, orders: _Orders) -> None:
    """Refuse LRN across channels unless its window is symmetric and the order is reversed: its neighbours stay the same then."""
    across = _channels(layer) == "neighbours" and not layer.parameters.get("within_channel")
    if across and (order != tuple(reversed(range(len(order)))) or layer.parameters["size"] % 2 == 0):
        _refuse(layer, orders)


def _refuse(layer: Layer, orders: _Orders) -> NoReturn:
    raise ModelError(
        f"{orders.source}: cannot follow the order of the colours through layer {layer.name!r} ({layer.type}); {REMEDY}"
    )
