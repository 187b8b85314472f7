"""Offsets of Crop layers that state none, in networks of the fork that fully convolutional networks were published with.

That fork aligns the first input with the second one by the coordinates of their common ancestor: a convolution or pooling with
kernel k, stride s and padding p maps the coordinate y of an output to s y + (k - 1) / 2 - p of its input, a deconvolution the
other way round (https://github.com/longjon/caffe/blob/future/src/caffe/layers/crop_layer.cpp). Its files are read so in the
syntax `layers { ... }`. In the syntax `layer { ... }`, which BVLC Caffe shares, a Crop without crop_param has the offset 0 there;
:func:`notes` names those that the fork crops elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from multiseg.errors import ModelError
from multiseg_caffe.describing import windows

# layers that keep the coordinates of their first input
SAME = (
    "AbsVal", "BN", "BNLL", "BatchNorm", "Bias", "Concat", "Dropout", "ELU", "Eltwise", "Exp", "LRN", "Log", "MVN", "PReLU",
    "Power", "ReLU", "Scale", "Sigmoid", "Silence", "Softmax", "Split", "SpatialDropout", "TanH", "Threshold",
)  # fmt: skip
Map = tuple[float, float]  # y -> factor y + shift


def set_offsets(net: Any, path: str) -> None:
    """Set the offsets of the Crop layers that have no crop_param, in place. Raises ModelError if its inputs do not align."""
    producers = _producers(net)
    for layer in _without_offset(net):
        try:
            offsets = _offsets(layer, producers)
        except windows.WrongLayer as error:
            raise ModelError(
                f"{path}: layer {layer.name!r} (Crop): {error}; specify crop_param {{ offset: ... }}"
            ) from error
        _set(layer, offsets)


def notes(net: Any, path: str) -> list[str]:
    """Return a sentence for each Crop layer without crop_param whose offset in the fork is not BVLC Caffe's.

    Inputs that cannot be aligned are no network of the fork. Sets the offsets of the fork, in place.
    """
    producers, sentences = _producers(net), []
    for layer in _without_offset(net):
        try:
            offsets = _offsets(layer, producers)
        except windows.WrongLayer:
            continue
        if any(offsets):
            state = f"crop_param {{ axis: 2 offset: {offsets[0]} offset: {offsets[1]} }}"
            sentences.append(
                f"{Path(path).name}: layer {layer.name!r} (Crop, top {layer.top[0]!r}) states no offset: it crops at (0, 0), as "
                f"in BVLC Caffe; the fork of FCN and HED crops at {tuple(offsets)}, where its inputs align; if the network is "
                f"meant for that fork, specify {state} in the layer"
            )
        _set(layer, offsets)
    return sentences


def _producers(net: Any) -> dict[str, Any]:
    """Return the first layer of each blob; others change it in place, and keep its coordinates."""
    producers: dict[str, Any] = {}
    for layer in net.layer:
        for top in layer.top:
            producers.setdefault(top, layer)
    return producers


def _without_offset(net: Any) -> list[Any]:
    return [
        layer
        for layer in net.layer
        if layer.type == "Crop" and not layer.HasField("crop_param") and len(layer.bottom) == 2 and layer.top
    ]


def _set(layer: Any, offsets: Sequence[int]) -> None:
    layer.crop_param.axis = 2
    layer.crop_param.offset.extend(offsets)


def _offsets(crop: Any, producers: dict[str, Any]) -> list[int]:
    """Return the offsets along height and width."""
    passed = list(_ancestors(crop.bottom[0], producers))
    common = next((blob for blob in _ancestors(crop.bottom[1], producers) if blob in passed), None)
    if common is None:
        raise windows.WrongLayer(f"its inputs {crop.bottom[0]!r} and {crop.bottom[1]!r} have no common ancestor")
    offsets = []
    for axis in (0, 1):
        (a, b), (c, d) = (_to(blob, common, producers, axis) for blob in crop.bottom)  # from the ancestor: y -> a y + b
        factor, shift = c / a, d - c / a * b
        if factor != 1 or shift > 0 or shift != round(shift):
            raise windows.WrongLayer(
                f"its inputs do not align: y in the first is {factor:g} y + {shift:g} in the second"
            )
        offsets.append(round(-shift))
    return offsets


def _ancestors(blob: str, producers: dict[str, Any]) -> Iterator[str]:
    """Yield a blob and those that it is computed from, by the first input of each layer; once each, also where a cycle is."""
    visited: set[str] = set()
    while blob not in visited:
        yield blob
        visited.add(blob)
        if blob in producers and producers[blob].bottom:
            blob = producers[blob].bottom[0]


def _to(blob: str, ancestor: str, producers: dict[str, Any], axis: int) -> Map:
    """Return the map from the coordinates of an ancestor to those of a blob."""
    factor, shift = 1.0, 0.0
    while blob != ancestor:
        layer = producers[blob]
        a, b = _of_layer(layer, axis)
        factor, shift = factor * a, factor * b + shift
        blob = layer.bottom[0]
    return factor, shift


def _of_layer(layer: Any, axis: int) -> Map:
    """Return the map from the coordinates of a layer's first input to those of its output."""
    if layer.type in SAME:
        return 1.0, 0.0
    if layer.type == "Crop" and layer.HasField("crop_param"):
        offset = layer.crop_param.offset
        return 1.0, -float(offset[axis] if len(offset) > 1 else offset[0] if offset else 0)
    if layer.type == "Pooling" and layer.pooling_param.global_pooling:
        raise windows.WrongLayer(f"layer {layer.name!r} pools globally, so coordinates are lost")
    if layer.type in ("Convolution", "Deconvolution"):
        window = windows.of_convolution(layer.convolution_param)
    elif layer.type == "Pooling":
        window = windows.of_pooling(layer.pooling_param, (1, 1))
    else:
        raise windows.WrongLayer(f"layer {layer.name!r} ({layer.type}) before it has no coordinates")
    stride = window.stride[axis]
    centre = window.dilation[axis] * (window.kernel[axis] - 1) / 2 - window.pad[axis]
    return (stride, centre) if layer.type == "Deconvolution" else (1 / stride, -centre / stride)
