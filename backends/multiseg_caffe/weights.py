"""Convert Caffe's weights to and from neutral names, `layer.part`, and neutral layout.

The layouts are the same, with three exceptions: BatchNorm, whose mean and variance Caffe stores as sums, with a third array
that is their divisor (src/caffe/layers/batch_norm_layer.cpp); PReLU with one slope for all channels, which is a scalar in
Caffe; InnerProduct with `transpose`. BN of the forks has scale and shift, or slope, bias, mean and variance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from multiseg.network import Array

BATCH_NORM = ("running_mean", "running_var")
_PARTS = {
    "Bias": ("bias",),
    "PReLU": ("weight",),
    "BatchNorm": BATCH_NORM,
    "BN": ("weight", "bias", *BATCH_NORM),
}


def neutral(layer: Any, blobs: Sequence[Array]) -> dict[str, Array]:
    """Return copies of a layer's arrays by part, in neutral layout. ``layer`` is its LayerParameter."""
    if layer.type == "BatchNorm" and len(blobs) == 3:
        factor = float(blobs[2].reshape(-1)[0])
        return {
            part: (blob / np.float32(factor) if factor else np.zeros_like(blob)).reshape(-1)
            for part, blob in zip(BATCH_NORM, blobs)  # noqa: B905 - worker code runs on Python 3.9
        }
    parts = {}
    for i, blob in enumerate(blobs):
        name = part(layer.type, i)
        if is_transposed(layer, name):
            blob = blob.reshape(blob.shape[-2:]).T
        elif layer.type == "InnerProduct" and name == "weight":
            blob = blob.reshape(blob.shape[-2:])  # (1, 1, N, K) in old files
        elif name == "bias" or layer.type in ("PReLU", "BN"):
            blob = blob.reshape(-1)
        parts[name] = np.array(blob, dtype=np.float32, order="C")
    return parts


def assign(layer: Any, blobs: Sequence[Array], parts: dict[str, Array]) -> None:
    """Write neutral arrays into the arrays of a layer, in place: the inverse of :func:`neutral`."""
    if layer.type == "BatchNorm":
        for name, blob in zip(BATCH_NORM, blobs):  # noqa: B905
            blob[...] = parts[name].reshape(blob.shape)
        blobs[2][...] = 1
        return
    for i, blob in enumerate(blobs):
        name = part(layer.type, i)
        value = parts[name].T if is_transposed(layer, name) else parts[name]
        blob[...] = value.reshape(blob.shape)


def part(kind: str, index: int) -> str:
    """Return the name of a layer's array with this index; ``blob2`` and so on for those without a name."""
    names = _PARTS.get(kind, ("weight", "bias"))
    return names[index] if index < len(names) else f"blob{index}"


def is_statistic(kind: str, index: int) -> bool:
    """Return whether a layer's array with this index is a statistic, which no solver updates."""
    return kind == "BatchNorm" or (kind == "BN" and index >= 2)


def is_fixed(layer: Any, arrays: int) -> bool:
    """Return whether a layer with this number of arrays has some that are no statistics, and its file trains none of them."""
    count = sum(not is_statistic(layer.type, index) for index in range(arrays))
    return count > 0 and len(layer.param) >= count and all(not param.lr_mult for param in layer.param[:count])


def shared(layers: Iterable[Any]) -> list[list[str]]:
    """Return the neutral names of each array that layers share in one layout, ``param { name: ... }``, in the layers' order."""
    names: dict[tuple[str, bool], dict[str, None]] = {}
    for layer in layers:
        for index, param in enumerate(layer.param):
            if param.name:
                name = part(layer.type, index)
                names.setdefault((param.name, is_transposed(layer, name)), {})[f"{layer.name}.{name}"] = None
    return [list(several) for several in names.values() if len(several) > 1]


def is_transposed(layer: Any, name: str) -> bool:
    """Return whether Caffe stores this array of a layer as (in, out)."""
    return bool(layer.type == "InnerProduct" and name == "weight" and layer.inner_product_param.transpose)
