"""What Caffe's solvers keep of each parameter, their history, under neutral names.

pycaffe does not show it: it is read and written as the solver state that Caffe's snapshots hold. For each slot it has a blob of
each parameter, in the net's order, one for parameters that share their memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from multiseg.network import Array
from multiseg_caffe.weights import assign, neutral

Owner = tuple[str, int]  # a layer, and the place of one of its parameters


def owners(params: Mapping[str, Any]) -> list[Owner]:
    """The parameters of a net that a solver has, in its order: the first of those that share their memory."""
    first: dict[int, Owner] = {}
    for owner, blob in _blobs(params):
        first.setdefault(blob.data.ctypes.data, owner)
    return list(first.values())


def named(layers: Mapping[str, Any], params: Mapping[str, Any], slots: Sequence[str], history: Sequence[Array]) -> Any:
    """The history by ``slot/layer.part``, in neutral layout. ``layers`` are LayerParameters by name."""
    return {
        f"{slot}/{layer}.{part}": array
        for slot, arrays in _by_layer(params, slots, history)
        for layer in params
        for part, array in neutral(layers[layer], arrays[layer]).items()
    }


def of(
    layers: Mapping[str, Any], params: Mapping[str, Any], slots: Sequence[str], state: Mapping[str, Array]
) -> list[Array]:
    """The inverse of :func:`named`; what the state has not is 0."""
    history = [np.zeros_like(params[layer][index].data) for _ in slots for layer, index in owners(params)]
    for slot, arrays in _by_layer(params, slots, history):
        for layer in params:
            parts = neutral(layers[layer], arrays[layer])
            found = {part: state[f"{slot}/{layer}.{part}"] for part in parts if f"{slot}/{layer}.{part}" in state}
            if found:
                assign(layers[layer], arrays[layer], {**parts, **found})
    return history


def _blobs(params: Mapping[str, Any]) -> Iterator[tuple[Owner, Any]]:
    return (((layer, index), blob) for layer, blobs in params.items() for index, blob in enumerate(blobs))


def _by_layer(
    params: Mapping[str, Any], slots: Sequence[str], history: Sequence[Array]
) -> Iterator[tuple[str, dict[str, list[Array]]]]:
    """Each slot with its arrays by layer, as ``params`` has the layer's weights."""
    place = {params[layer][index].data.ctypes.data: at for at, (layer, index) in enumerate(owners(params))}
    for number, slot in enumerate(slots):
        yield (
            slot,
            {
                layer: [history[number * len(place) + place[blob.data.ctypes.data]] for blob in blobs]
                for layer, blobs in params.items()
            },
        )
