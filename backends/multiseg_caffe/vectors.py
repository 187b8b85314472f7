"""Blobs as vectors, in layers of Caffe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def vectors(net: Any, name: str, bottom: str) -> str:
    """Append a layer for a blob as (N, elements of one of its images); return its blob, ``name``.

    It is a Reshape: a Flatten after a Reshape loses the gradient, as its backward pass replaces the array that the Reshape shares
    (src/caffe/layers/flatten_layer.cpp, reshape_layer.cpp).
    """
    layer = net.layer.add(name=name, type="Reshape", bottom=[bottom], top=[name])
    layer.reshape_param.shape.dim.extend([0, -1])
    return name


def without_flatten(net: Any, shapes: Mapping[str, tuple[int, ...]]) -> Any:
    """Return the network with each Flatten as the Reshape to the same shape, which keeps the gradient of a Reshape before it.

    The same loss of the gradient occurs after a Concat of one input or a Slice into one output, which share arrays, too.
    ``shapes`` are those of the blobs; a Flatten of one that is not there stays if it counts axes from the end.
    """
    for layer in net.layer:
        if layer.type != "Flatten" or len(layer.bottom) != 1:
            continue
        axes = len(shapes.get(layer.bottom[0], ()))
        first, last = layer.flatten_param.axis, layer.flatten_param.end_axis
        first, last = first + axes * (first < 0), last + axes * (last < 0)
        if first < 0 or not (first <= last < axes or (last == -1 and not axes)):
            continue
        layer.type = "Reshape"
        layer.ClearField("flatten_param")
        layer.reshape_param.axis = first
        layer.reshape_param.num_axes = -1 if last in (-1, axes - 1) else last - first + 1
        layer.reshape_param.shape.dim.append(-1)
    return net
