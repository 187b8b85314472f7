"""Compute convolutions whose kernel equals their stride as one matrix product over the batch, on a mosaic of its images.

Caffe loops over the images of a batch and reads all weights for each. A mosaic concatenates the images along the width
into one wide image: if windows do not overlap and the width of an image is a multiple of the kernel's, no window crosses
the border between two images, so the result is the same. A chain of such layers, with elementwise layers between them, is
computed on one mosaic: Slice along the batch, Concat along the width, the chain, then the inverse. Columns beyond the last
whole window of an image are cut off first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from multiseg_caffe.describing import windows
from multiseg_caffe.proto import NetParameter

ELEMENTWISE = {"ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "AbsVal", "BNLL", "Power", "Exp", "Log"}
BATCH, WIDTH = 0, 3
# Use a mosaic if the chain has more than this number of weights per copied element of an image (input and output of the chain).
# Measured on 37 layers (1x1 to 16x16, 1 to 1024 channels, 1 to 32 groups, batches of 2, 4 and 32; forward and backward, one
# thread of an AMD EPYC with OpenBLAS, CPU time, alternating): a mosaic took 1.0 to 2.2 times as long with a ratio below 10, from
# 1.1 times down to a fifth with a ratio of 14 or more; the larger the batch, the shorter.
GAIN = 12

Shapes = Mapping[str, tuple[int, ...]]  # blob name -> (N, C, H, W)


def lowered(net: Any, shapes: Shapes) -> tuple[Any, list[str]]:
    """Return the network with mosaics, and the names of the (de)convolutions that are computed on them.

    ``shapes`` are those of the blobs of ``net``; the result is valid for their batch size only.
    """
    chains = _chains(net, shapes)
    starts = {chain[0]: chain for chain in chains}
    ends = {chain[-1]: chain for chain in chains}
    inside = {index: chain for chain in chains for index in chain}
    result = NetParameter(name=net.name)
    for index, layer in enumerate(net.layer):
        if index in starts:
            whole = _whole(result, layer, shapes[layer.bottom[0]][WIDTH])
            _join(result, whole, f"{layer.name}_mosaic", shapes[layer.bottom[0]][BATCH], BATCH, WIDTH)
        copy = result.layer.add()
        copy.CopyFrom(layer)
        if index not in inside:
            continue
        chain = inside[index]
        first, last = net.layer[chain[0]], net.layer[chain[-1]]
        names = {first.bottom[0]: f"{first.name}_mosaic", last.top[0]: f"{last.name}_wide"}
        copy.bottom[0] = names.get(layer.bottom[0], layer.bottom[0])
        copy.top[0] = names.get(layer.top[0], layer.top[0])
        if index in ends:
            _join(result, copy.top[0], last.top[0], shapes[last.top[0]][0], WIDTH, BATCH)
    return result, [net.layer[i].name for chain in chains for i in chain if net.layer[i].type not in ELEMENTWISE]


def unmosaic(blob: Any, count: int) -> Any:
    """Return a copy of a blob's data as (N, C, H, W) for ``count`` images, whether or not it is a mosaic of them."""
    if blob.ndim == 4 and blob.shape[BATCH] == 1 and blob.shape[WIDTH] % count == 0:
        return np.concatenate(np.split(blob, count, WIDTH), BATCH)
    return blob.copy()


def _whole(net: Any, layer: Any, width: int) -> str:
    """Append layers that cut off the columns beyond the last whole window, if any; return the blob of the cropped images."""
    image: str = layer.bottom[0]
    remainder = width % _kernel(layer)[1] if layer.type == "Convolution" else 0
    if not remainder:
        return image
    whole, unused = f"{layer.name}_whole", f"{layer.name}_rest"
    slicing = net.layer.add(name=f"{layer.name}_cut", type="Slice", bottom=[image], top=[whole, unused])
    slicing.slice_param.axis = WIDTH
    slicing.slice_param.slice_point.append(width - remainder)
    net.layer.add(name=unused, type="Silence", bottom=[unused])
    return whole


def _join(net: Any, bottom: str, top: str, count: int, slice_axis: int, concat_axis: int) -> None:
    """Append layers that slice ``bottom`` into ``count`` tiles along one axis and concatenate these along another."""
    tiles = [f"{top}_{i}" for i in range(count)]
    slicing = net.layer.add(name=f"{top}_slice", type="Slice", bottom=[bottom], top=tiles)
    slicing.slice_param.axis = slice_axis
    concat = net.layer.add(name=f"{top}_concat", type="Concat", bottom=tiles, top=[top])
    concat.concat_param.axis = concat_axis


def _chains(net: Any, shapes: Shapes) -> list[list[int]]:
    """Return chains of layers (indices), each the only consumer of the previous one, for which a mosaic is valid and faster."""
    chains: list[list[int]] = []
    taken: set[int] = set()
    for start, layer in enumerate(net.layer):
        if start in taken or not _tiles(layer, shapes):
            continue
        chain = [start]
        while True:
            blob = net.layer[chain[-1]].top[0]
            consumers = [i for i in range(chain[-1] + 1, len(net.layer)) if blob in net.layer[i].bottom]
            if not consumers or not _extends_chain(net.layer[consumers[0]], shapes):
                break
            in_place = net.layer[consumers[0]].top[0] == blob
            if len(consumers) > 1 and not in_place:
                break
            chain.append(consumers[0])
        if shapes[layer.bottom[0]][BATCH] > 1 and _gains(net, chain, shapes):
            chains.append(chain)
            taken.update(chain)
    return chains


def _tiles(layer: Any, shapes: Shapes) -> bool:
    """Return whether a layer is a 2-D (de)convolution whose windows tile its input: adjacent, without overlap or padding."""
    if layer.type not in ("Convolution", "Deconvolution") or len(layer.bottom) != 1:
        return False
    p = layer.convolution_param
    window = windows.of_convolution(p)
    return bool(
        window.kernel == window.stride
        and not any(window.pad)
        and window.dilation == (1, 1)
        and p.axis == 1
        and len(shapes.get(layer.bottom[0], ())) == 4
    )


def _extends_chain(layer: Any, shapes: Shapes) -> bool:
    """Return whether a layer may be computed on the mosaic that the previous layer outputs."""
    if layer.type in ELEMENTWISE:
        return True
    if not _tiles(layer, shapes):
        return False
    return layer.type == "Deconvolution" or shapes[layer.bottom[0]][WIDTH] % _kernel(layer)[1] == 0


def _kernel(layer: Any) -> windows.Pair:
    return windows.of_convolution(layer.convolution_param).kernel


def _gains(net: Any, chain: list[int], shapes: Shapes) -> bool:
    """Return whether reading weights once instead of once per image saves more than copying each image costs."""
    weights = 0
    for index in chain:
        layer = net.layer[index]
        if layer.type not in ELEMENTWISE:
            (height, width), p = _kernel(layer), layer.convolution_param
            weights += shapes[layer.bottom[0]][1] * p.num_output * height * width // (p.group or 1)
    first, last = shapes[net.layer[chain[0]].bottom[0]], shapes[net.layer[chain[-1]].top[0]]
    return weights > GAIN * (math.prod(first[1:]) + math.prod(last[1:]))
