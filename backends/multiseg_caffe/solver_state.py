"""Convert the history of Caffe's solvers (momentum and the like) to and from neutral names.

pycaffe has no access to the history: it is read and written as the SolverState of Caffe's snapshots. For each slot it has one
blob for each parameter, in the net's order; parameters that share memory have one blob.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from multiseg.errors import ModelError
from multiseg.files import read_bytes
from multiseg.network import Array
from multiseg_caffe.proto import SolverState
from multiseg_caffe.weights import assign, neutral

Owner = tuple[str, int]  # a layer, and the index of one of its parameters


def owners(params: Mapping[str, Any]) -> list[Owner]:
    """Return the parameters of a net that a solver updates, in its order: the first of those that share memory."""
    first: dict[int, Owner] = {}
    for owner, blob in _blobs(params):
        first.setdefault(blob.data.ctypes.data, owner)
    return list(first.values())


def check(path: Path, weights: str, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise ModelError if a file is no SolverState of the weights file ``weights`` and of parameters of these shapes.

    Caffe ends its process for a damaged file, takes arrays of any size, and loads weights from any path that the file names.
    """
    state = SolverState()
    try:
        state.ParseFromString(read_bytes(path))
    except DecodeError as error:
        raise ModelError(f"{path}: is damaged: {error}; resume from another snapshot") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if state.learned_net != weights:
        raise ModelError(f"{path}: names the weights file {state.learned_net!r}, not {weights!r}; it is damaged")
    if len(state.history) % max(len(shapes), 1):
        raise ModelError(
            f"{path}: has {len(state.history)} arrays for {len(shapes)} parameters; it is damaged, or of another network"
        )
    for index, blob in enumerate(state.history):
        shape, count = shapes[index % len(shapes)], len(blob.data or blob.double_data)
        if tuple(blob.shape.dim) != shape or count != math.prod(shape):
            raise ModelError(
                f"{path}: its array {index} has {count} numbers and the shape {list(blob.shape.dim)[:9]}, and the parameter has "
                f"the shape {list(shape)}; it is damaged, or of another network"
            )


def named(layers: Mapping[str, Any], params: Mapping[str, Any], slots: Sequence[str], history: Sequence[Array]) -> Any:
    """Return the history as ``slot/layer.part`` -> array, in neutral layout. ``layers`` maps names to LayerParameters."""
    return {
        f"{slot}/{layer}.{part}": array
        for slot, arrays in _by_layer(params, slots, history)
        for layer in params
        for part, array in neutral(layers[layer], arrays[layer]).items()
    }


def of(
    layers: Mapping[str, Any], params: Mapping[str, Any], slots: Sequence[str], state: Mapping[str, Array]
) -> list[Array]:
    """Return the history of a neutral state, the inverse of :func:`named`; arrays that the state lacks are 0."""
    history = [np.zeros_like(params[layer][index].data) for _ in slots for layer, index in owners(params)]
    for slot, arrays in _by_layer(params, slots, history):
        for layer in params:
            parts = neutral(layers[layer], arrays[layer])
            stored = {part: state[f"{slot}/{layer}.{part}"] for part in parts if f"{slot}/{layer}.{part}" in state}
            if stored:
                assign(layers[layer], arrays[layer], {**parts, **stored})
    return history


def _blobs(params: Mapping[str, Any]) -> Iterator[tuple[Owner, Any]]:
    return (((layer, index), blob) for layer, blobs in params.items() for index, blob in enumerate(blobs))


def _by_layer(
    params: Mapping[str, Any], slots: Sequence[str], history: Sequence[Array]
) -> Iterator[tuple[str, dict[str, list[Array]]]]:
    """Yield each slot with its arrays by layer, in the order of the layer's weights in ``params``."""
    position = {params[layer][index].data.ctypes.data: i for i, (layer, index) in enumerate(owners(params))}
    for number, slot in enumerate(slots):
        yield (
            slot,
            {
                layer: [history[number * len(position) + position[blob.data.ctypes.data]] for blob in blobs]
                for layer, blobs in params.items()
            },
        )
