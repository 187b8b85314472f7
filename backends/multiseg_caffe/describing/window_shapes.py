"""Infer the shapes of convolutions and poolings, as Caffe does.

The public functions take a LayerParameter and its bottoms' shapes; they raise WrongLayer for layers that Caffe rejects.
"""

from __future__ import annotations

from typing import Any

from multiseg_caffe.describing import windows
from multiseg_caffe.describing.axes import Inferred, Shape, axis, image, listed
from multiseg_caffe.describing.windows import WrongLayer
from multiseg_caffe.proto import PoolingParameter


def convolution_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    """Infer shapes of a Convolution or Deconvolution (src/caffe/layers/base_conv_layer.cpp)."""
    p = layer.convolution_param
    window = windows.of_convolution(p)
    if axis(p.axis, bottoms[0]) != 1:
        raise WrongLayer(f"has axis {p.axis}; multiseg supports only convolutions over (N, C, H, W)")
    if len(bottoms) != len(layer.top):
        raise WrongLayer(f"has {len(bottoms)} bottoms and {len(layer.top)} tops; it needs one top for each bottom")
    channels = image(bottoms[0])[1]
    if not p.group or channels % p.group or p.num_output % p.group:
        raise WrongLayer(
            f"has {p.group} groups, which must divide its {channels} input and {p.num_output} output channels evenly"
        )
    forward = layer.type == "Convolution"
    tops: list[Shape] = []
    for bottom in bottoms:
        if bottom[:2] != bottoms[0][:2]:
            raise WrongLayer(f"applies the same weights to inputs of different channels, {listed(bottoms)}")
        size = [_convolved(image(bottom)[2 + i], i, window, forward) for i in range(2)]
        if min(size) < 1:
            raise WrongLayer(
                f"has a {window.kernel[0]}x{window.kernel[1]} kernel, larger than its input of {bottom[2]}x{bottom[3]}"
                if forward
                else f"pads away all of its input of {bottom[2]}x{bottom[3]}"
            )
        tops.append((bottom[0], p.num_output, *size))
    first, second = (p.num_output, channels) if forward else (channels, p.num_output)
    return tops, [(first, second // p.group, *window.kernel), *([(p.num_output,)] if p.bias_term else [])]


def _convolved(size: int, i: int, window: windows.Window, forward: bool) -> int:
    """Return the output size along spatial axis ``i`` of a Convolution (``forward``) or Deconvolution."""
    extent = window.dilation[i] * (window.kernel[i] - 1) + 1
    if forward:
        return (size + 2 * window.pad[i] - extent) // window.stride[i] + 1
    return window.stride[i] * (size - 1) + extent - 2 * window.pad[i]


def pooling_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    """Infer shapes of a Pooling (src/caffe/layers/pooling_layer.cpp)."""
    p = layer.pooling_param
    n, channels, *size = image(bottoms[0])
    window = windows.of_pooling(p, (size[0], size[1]))
    if any(window.pad) and p.pool == PoolingParameter.STOCHASTIC:
        raise WrongLayer("has pad, which stochastic pooling does not support")
    ceil = p.round_mode == PoolingParameter.CEIL
    out = [_pooled(size[i], i, window, ceil) for i in range(2)]
    if min(out) < 1:
        raise WrongLayer(
            f"has a {window.kernel[0]}x{window.kernel[1]} window, larger than its input of {size[0]}x{size[1]}"
        )
    return [(n, channels, *out)] * len(layer.top), []


def _pooled(size: int, i: int, window: windows.Window, ceil: bool) -> int:
    """Return the output size along spatial axis ``i`` of a Pooling that rounds up (``ceil``) or down."""
    span = size + 2 * window.pad[i] - window.kernel[i]
    count = (-(-span // window.stride[i]) if ceil else span // window.stride[i]) + 1
    # the last window must start within the image or the padding before it
    return count - 1 if any(window.pad) and (count - 1) * window.stride[i] >= size + window.pad[i] else count


def spatial_pyramid_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    """Infer shapes of an SPP (src/caffe/layers/spp_layer.cpp)."""
    n, channels, *size = image(bottoms[0])
    height = layer.spp_param.pyramid_height
    if not height:
        raise WrongLayer("has no pyramid_height")
    bins = 0
    for level in range(height):
        kernel = (-(-size[0] // 2**level), -(-size[1] // 2**level))
        pad = ((kernel[0] * 2**level - size[0] + 1) // 2, (kernel[1] * 2**level - size[1] + 1) // 2)
        if pad[0] >= kernel[0] or pad[1] >= kernel[1]:
            raise WrongLayer(f"has pyramid_height {height}, which is too large for its input of {size[0]}x{size[1]}")
        window = windows.Window(kernel, kernel, pad)
        bins += _pooled(size[0], 0, window, True) * _pooled(size[1], 1, window, True)
    return [(n, channels, 1, 1) if height == 1 else (n, channels * bins)], []
