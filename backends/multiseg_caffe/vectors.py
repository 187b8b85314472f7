"""Blobs as vectors, in layers of Caffe."""

from __future__ import annotations

from typing import Any


def vectors(net: Any, name: str, bottom: str) -> str:
    """Append a layer for a blob as (N, elements of one of its images); return its blob, ``name``.

    It is a Reshape: a Flatten after a Reshape loses the gradient, as its backward pass replaces the array that the Reshape shares
    (src/caffe/layers/flatten_layer.cpp, reshape_layer.cpp).
    """
    layer = net.layer.add(name=name, type="Reshape", bottom=[bottom], top=[name])
    layer.reshape_param.shape.dim.extend([0, -1])
    return name
