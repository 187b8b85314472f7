"""Convolutions whose kernel equals their stride as one matrix product over the batch: the mosaic.

Caffe loops over the images of a batch and reads all weights for each. Images laid side by side along the width are one
wide image: where kernels do not overlap and widths are whole multiples of them, no window crosses a seam, so the result
is the same. A chain of such layers, with elementwise layers between them, is computed on one mosaic: Slice along the
batch, Concat along the width, the chain, and back. A rest beyond an image's last whole window is cut off before.
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
# Weights for each number of an image that the mosaic copies (what the chain reads and what it makes), from which on it pays. Of
# 37 layers (1x1 to 16x16, 1 to 1024 channels, 1 to 32 groups, batches of 2, 4 and 32; forward and backward, one thread of an AMD
# EPYC with OpenBLAS, processor time, by turns) a mosaic took 1.0 to 2.2 times as long where there were less than 10, and from 1.1
# times down to a fifth where there were 14 and more: the less, the larger the batch.
GAIN = 12

Shapes = Mapping[str, tuple[int, ...]]  # of each blob, by name, as (N, C, H, W)


def lowered(net: Any, shapes: Shapes) -> tuple[Any, list[str]]:
    """The network with mosaics, and the names of the (de)convolutions in them.

    ``shapes`` are those of the plain network's blobs; they fix the batch size of the result.
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
    """A copy of a blob's data as (N, C, H, W) for ``count`` images, whether it is a mosaic of them or not."""
    if blob.ndim == 4 and blob.shape[BATCH] == 1 and blob.shape[WIDTH] % count == 0:
        return np.concatenate(np.split(blob, count, WIDTH), BATCH)
    return blob.copy()


def _whole(net: Any, layer: Any, width: int) -> str:
    """Images without the rest that the layer does not see, cut off where there is one."""
    image: str = layer.bottom[0]
    rest = width % _kernel(layer)[1] if layer.type == "Convolution" else 0
    if not rest:
        return image
    whole, beyond = f"{layer.name}_whole", f"{layer.name}_rest"
    slicing = net.layer.add(name=f"{layer.name}_cut", type="Slice", bottom=[image], top=[whole, beyond])
    slicing.slice_param.axis = WIDTH
    slicing.slice_param.slice_point.append(width - rest)
    net.layer.add(name=beyond, type="Silence", bottom=[beyond])
    return whole


def _join(net: Any, bottom: str, top: str, count: int, cut: int, glue: int) -> None:
    tiles = [f"{top}_{i}" for i in range(count)]
    slicing = net.layer.add(name=f"{top}_slice", type="Slice", bottom=[bottom], top=tiles)
    slicing.slice_param.axis = cut
    concat = net.layer.add(name=f"{top}_concat", type="Concat", bottom=tiles, top=[top])
    concat.concat_param.axis = glue


def _chains(net: Any, shapes: Shapes) -> list[list[int]]:
    """Runs of layers, each the only consumer of the one before, that may be computed on a mosaic and gain by it."""
    chains: list[list[int]] = []
    taken: set[int] = set()
    for start, layer in enumerate(net.layer):
        if start in taken or not _tiles(layer, shapes):
            continue
        chain = [start]
        while True:
            blob = net.layer[chain[-1]].top[0]
            users = [i for i in range(chain[-1] + 1, len(net.layer)) if blob in net.layer[i].bottom]
            if not users or not _goes_on(net.layer[users[0]], shapes):
                break
            in_place = net.layer[users[0]].top[0] == blob
            if len(users) > 1 and not in_place:
                break
            chain.append(users[0])
        if shapes[layer.bottom[0]][BATCH] > 1 and _gains(net, chain, shapes):
            chains.append(chain)
            taken.update(chain)
    return chains


def _tiles(layer: Any, shapes: Shapes) -> bool:
    """Whether windows lie side by side, without overlap."""
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


def _goes_on(layer: Any, shapes: Shapes) -> bool:
    """Whether a layer may work on the mosaic that the one before it made."""
    if layer.type in ELEMENTWISE:
        return True
    if not _tiles(layer, shapes):
        return False
    return layer.type == "Deconvolution" or shapes[layer.bottom[0]][WIDTH] % _kernel(layer)[1] == 0


def _kernel(layer: Any) -> windows.Pair:
    return windows.of_convolution(layer.convolution_param).kernel


def _gains(net: Any, chain: list[int], shapes: Shapes) -> bool:
    """Whether the weights read once instead of once per image outweigh what the mosaic copies per image."""
    weights = 0
    for index in chain:
        layer = net.layer[index]
        if layer.type not in ELEMENTWISE:
            (height, width), p = _kernel(layer), layer.convolution_param
            weights += shapes[layer.bottom[0]][1] * p.num_output * height * width // (p.group or 1)
    first, last = shapes[net.layer[chain[0]].bottom[0]], shapes[net.layer[chain[-1]].top[0]]
    return weights > GAIN * (math.prod(first[1:]) + math.prod(last[1:]))
