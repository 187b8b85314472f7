"""Read weights that Caffe wrote in HDF5 (`.caffemodel.h5`, Net::ToHDF5 in src/caffe/net.cpp), without Caffe.

The file has a group `data` with a group for each layer, and in it a dataset for each array, named by its index. It does not have
the types of layers; they are those of the network, if it is known, else they follow from the arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.errors import ModelError
from multiseg.files import hdf5
from multiseg.network import Array
from multiseg.worker import choice
from multiseg_caffe import prototxt
from multiseg_caffe.proto import LayerParameter

Layer = tuple[Any, list[Array]]  # a LayerParameter and its arrays


def layers(path: Path, network: str | None) -> list[Layer]:
    """Return the layers in a file with their arrays in float32. Raises ModelError if it is damaged, or none of Caffe's.

    ``network`` is the prototxt of the network that the weights belong to, None if it is unknown.
    """
    known = {} if network is None else {layer.name: layer for layer in _layers_of(network)}
    with hdf5.opened(path) as file:
        if "data" not in file:
            raise ModelError(f"{path}: is an HDF5 file without the group 'data' of Caffe's weights")
        found = [(name, [np.asarray(array, np.float32) for array in arrays]) for name, arrays in _groups(path, file)]
    return [(known.get(name) or LayerParameter(name=name, type=_type(arrays)), arrays) for name, arrays in found]


def _layers_of(network: str) -> Sequence[Any]:
    file: Any = prototxt.read(network)
    return prototxt.filtered(file, "train", str(choice.read(network).file)).layer  # type: ignore[no-any-return]


def _groups(path: Path, file: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yield the name of each layer with its datasets in order; names with slashes are groups within groups."""
    waiting = [("", file["data"])]
    while waiting:
        name, group = waiting.pop(0)
        datasets = {key: value for key, value in group.items() if hasattr(value, "dtype")}
        waiting += [(f"{name}/{key}" if name else key, value) for key, value in group.items() if key not in datasets]
        indices = [str(index) for index in range(len(datasets))]
        if set(datasets) != set(indices) or (datasets and not name):
            raise ModelError(
                f"{path}: the layer {name!r} has the arrays {', '.join(datasets)} instead of 0, 1, ...; it is damaged"
            )
        if datasets:
            yield name, [datasets[index] for index in indices]


def _type(arrays: Sequence[Array]) -> str:
    """Return the type of layer that has arrays of these shapes; "" for one with a weight and possibly a bias."""
    sizes = [array.size for array in arrays]
    if len(arrays) == 3 and sizes[0] == sizes[1] and sizes[2] == 1:
        return "BatchNorm"
    if len(set(sizes)) == 1 and (
        len(arrays) == 4 or (len(arrays) == 2 and arrays[0].ndim == 4 and sizes[0] == arrays[0].shape[1])
    ):
        return "BN"
    return ""
