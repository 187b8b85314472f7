"""Convert the history of Caffe's solvers (momentum and the like) to and from neutral names.

pycaffe has no access to the history: it is read and written as the SolverState of Caffe's snapshots. For each slot it has one
blob for each parameter, in the net's order; parameters that share memory have one blob.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from multiseg.network import Array
from multiseg_caffe.weights import assign, neutral

Owner = tuple[str, int]  # a layer, and the index of one of its parameters


def owners(params: Mapping[str, Any]) -> list[Owner]:
    """Return the parameters of a net that a solver updates, in its order: the first of those that share memory."""
    first: dict[int, Owner] = {}
    for owner, blob in _blobs(params):
        first.setdefault(blob.data.ctypes.data, owner)
    return list(first.values())


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
