"""Caffe's arrays of weights under their neutral names, `layer.part`, and in their neutral meaning.

They are the same but for BatchNorm, whose mean and variance Caffe keeps as sums with a third array, the factor to divide
them by (src/caffe/layers/batch_norm_layer.cpp); for a PReLU with one slope for all channels, which is a scalar in Caffe;
and for InnerProduct with `transpose`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from multiseg.network import Array

BATCH_NORM = ("running_mean", "running_var")
_PARTS = {"Bias": ("bias",), "PReLU": ("weight",), "BatchNorm": BATCH_NORM}


def neutral(layer: Any, blobs: Sequence[Array]) -> dict[str, Array]:
    """Copies of a layer's arrays, by their part. ``layer`` is its LayerParameter."""
    if layer.type == "BatchNorm" and len(blobs) == 3:
        factor = float(blobs[2].reshape(-1)[0])
        return {
            part: (blob / np.float32(factor) if factor else np.zeros_like(blob)).reshape(-1)
            for part, blob in zip(BATCH_NORM, blobs)  # noqa: B905 - worker code runs on Python 3.9
        }
    found = {}
    for i, blob in enumerate(blobs):
        name = part(layer.type, i)
        if _transposed(layer, name):
            blob = blob.reshape(blob.shape[-2:]).T
        elif layer.type == "InnerProduct" and name == "weight":
            blob = blob.reshape(blob.shape[-2:])  # (1, 1, N, K) in old files
        elif name == "bias" or layer.type == "PReLU":
            blob = blob.reshape(-1)
        found[name] = np.array(blob, dtype=np.float32, order="C")
    return found


def assign(layer: Any, blobs: Sequence[Array], parts: dict[str, Array]) -> None:
    """The inverse of :func:`neutral`, into the arrays that a network has."""
    if layer.type == "BatchNorm":
        for name, blob in zip(BATCH_NORM, blobs):  # noqa: B905
            blob[...] = parts[name].reshape(blob.shape)
        blobs[2][...] = 1
        return
    for i, blob in enumerate(blobs):
        name = part(layer.type, i)
        value = parts[name].T if _transposed(layer, name) else parts[name]
        blob[...] = value.reshape(blob.shape)


def part(kind: str, index: int) -> str:
    """What the array at this place of a layer is called; ``blob2`` and so on where there is no name for it."""
    names = _PARTS.get(kind, ("weight", "bias"))
    return names[index] if index < len(names) else f"blob{index}"


def _transposed(layer: Any, name: str) -> bool:
    return bool(layer.type == "InnerProduct" and name == "weight" and layer.inner_product_param.transpose)
