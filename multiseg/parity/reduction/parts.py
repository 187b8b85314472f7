"""Cut a few layers out of a network: a network of its own, whose input is the values that these layers read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multiseg.errors import ModelError
from multiseg.reference.bounded import Array
from multiseg.topology import Layer, Topology

FACTORS = "factors"  # the name of a Scale that is put before layers without parameters, to observe their gradient


def part_of(
    network: Topology,
    layers: Sequence[Layer],
    values: Mapping[str, Array],
    output: str,
    with_factors: bool = False,
) -> tuple[Topology, Array]:
    """Return the network of ``layers`` with the one output ``output``, and its input (N, C, H, W), float32.

    ``values`` are those of all layers in ``network`` for one batch. An input that is no image, or several inputs, are put
    together to one image, which Slice and Reshape layers take apart. ``with_factors`` multiplies the first input
    by a factor for each channel (a Scale called FACTORS). Raises ModelError if the layers do not make a network.
    """
    computed = {value for layer in layers for value in layer.outputs}
    read = list(dict.fromkeys(value for layer in layers for value in layer.inputs if value not in computed))
    if not read:
        raise ModelError(f"{network.source}: {layers[0].name} reads nothing")
    taken = {*network.shapes, *(layer.name for layer in network.layers)}
    name, images, nodes = _input(read, values, taken)
    instead: dict[str, str] = {}
    if with_factors:
        nodes.append({"name": FACTORS, "type": "Scale", "inputs": [read[0]], "parameters": {}, "outputs": [FACTORS]})
        instead[read[0]] = FACTORS
    nodes += [node_of(layer, instead) for layer in layers]
    description = {"input": name, "input_shape": images.shape[1:], "layers": nodes, "outputs": [output]}
    return Topology.of("part.net", "part", description), images


def node_of(layer: Layer, instead: Mapping[str, str]) -> dict[str, Any]:
    """Return a layer as plain values; ``instead`` are other inputs by their names."""
    return {
        "name": layer.name,
        "type": layer.type,
        "inputs": [instead.get(name, name) for name in layer.inputs],
        "outputs": list(layer.outputs),
        "parameters": dict(layer.parameters),
        "frozen": layer.frozen,
        "shapes": layer.shapes,
        "weights": layer.weights,
    }


def _input(
    read: Sequence[str], values: Mapping[str, Array], taken: set[str]
) -> tuple[str, Array, list[dict[str, Any]]]:
    """Return the name and the images of an input from which the values ``read`` follow, and the layers that take it apart."""
    arrays = {name: np.ascontiguousarray(values[name], dtype=np.float32) for name in read}
    first = arrays[read[0]]
    if len(read) == 1 and first.ndim == 4:
        return read[0], first, []
    images = {name: array.reshape((*array.shape, 1, 1)[:4]) for name, array in arrays.items()}
    name = next(name for name in ("data", "part_data", "part_data_") if name not in taken)
    if len(read) == 1:
        return name, images[read[0]], [_reshape(read[0], name, first)]
    height, width = (max(image.shape[axis] for image in images.values()) for axis in (2, 3))
    joined, nodes, start = [], list[dict[str, Any]](), 0
    for number, (value, image) in enumerate(images.items()):
        channels, *size = image.shape[1:]
        joined.append(np.pad(image, [(0, 0), (0, 0), (0, height - size[0]), (0, width - size[1])]))
        whole = arrays[value].ndim == 4
        part = value if whole else f"part_{number}"
        axes, ends = ([1], [start + channels]) if [height, width] == size else ([1, 2, 3], [start + channels, *size])
        parameters = {"axes": axes, "starts": [start, 0, 0][: len(axes)], "ends": ends}
        nodes.append(
            {
                "name": f"part_slice{number}",
                "type": "Slice",
                "inputs": [name],
                "parameters": parameters,
                "outputs": [part],
            }
        )
        if not whole:
            nodes.append(_reshape(value, part, arrays[value]))
        start += channels
    return name, np.concatenate(joined, 1), nodes


def _reshape(value: str, image: str, array: Array) -> dict[str, Any]:
    """Return the layer that takes ``value``, a vector or a matrix for each image, from the value ``image``."""
    flat = array.ndim == 2
    parameters = {} if flat else {"shape": [0, -1]}
    return {
        "name": f"part_{value}_shape".replace("/", "_"), "type": "Flatten" if flat else "Reshape", "inputs": [image],
        "parameters": parameters, "outputs": [value],
    }  # fmt: skip
