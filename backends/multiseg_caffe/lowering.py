"""Convolutions whose kernel equals their stride as one matrix product over the batch: the mosaic.

Caffe loops over the images of a batch and reads all weights for each. Images laid side by side along the width are one
wide image: where kernels do not overlap and widths are whole multiples of them, no window crosses a seam, so the result
is the same. A chain of such layers, with elementwise layers between them, is computed on one mosaic: Slice along the
batch, Concat along the width, the chain, and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from multiseg_caffe import windows
from multiseg_caffe.proto import NetParameter

ELEMENTWISE = {"ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "AbsVal", "BNLL", "Power", "Exp", "Log"}
BATCH, WIDTH = 0, 3

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
            _join(result, layer.bottom[0], f"{layer.name}_mosaic", shapes[layer.bottom[0]][0], BATCH, WIDTH)
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
            if not users or not (_tiles(net.layer[users[0]], shapes) or net.layer[users[0]].type in ELEMENTWISE):
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
    """Whether windows lie side by side, without overlap or rest."""
    if layer.type not in ("Convolution", "Deconvolution") or len(layer.bottom) != 1:
        return False
    p, shape = layer.convolution_param, shapes.get(layer.bottom[0], ())
    window = windows.of_convolution(p)
    if window.kernel != window.stride or any(window.pad) or window.dilation != (1, 1) or p.axis != 1 or len(shape) != 4:
        return False
    return bool(layer.type == "Deconvolution" or shape[WIDTH] % window.kernel[1] == 0)


def _gains(net: Any, chain: list[int], shapes: Shapes) -> bool:
    """Whether the weights read once instead of once per image outweigh what the mosaic copies per image."""
    weights = 0
    for index in chain:
        layer = net.layer[index]
        if layer.type in ELEMENTWISE:
            continue
        p = layer.convolution_param
        kernel = windows.of_convolution(p).kernel
        weights += shapes[layer.bottom[0]][1] * p.num_output * kernel[0] * kernel[1] // (p.group or 1)
    first, last = shapes[net.layer[chain[0]].bottom[0]], shapes[net.layer[chain[-1]].top[0]]
    copied = first[1] * first[2] * first[3] + last[1] * last[2] * last[3]
    return weights > copied
