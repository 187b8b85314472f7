"""The FCN in float64 numpy, written from the definitions of convolution and transposed convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def convolution(x: Array, weight: Array, bias: Array, stride: int, pad: int) -> Array:
    """x (N, C, H, W), weight OIHW."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    kernel = weight.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,ocij->nohw", windows, weight, optimize=True) + bias[:, None, None]


def deconvolution(x: Array, weight: Array, bias: Array, stride: int) -> Array:
    """x (N, C, H, W), weight IOHW: every input pixel adds its weighted kernel to the output."""
    (n, _, h, w), (_, out, kernel, _) = x.shape, weight.shape
    y = np.zeros((n, out, (h - 1) * stride + kernel, (w - 1) * stride + kernel))
    for row in range(h):
        for column in range(w):
            patch = np.einsum("nc,coij->noij", x[:, :, row, column], weight)
            y[:, :, row * stride : row * stride + kernel, column * stride : column * stride + kernel] += patch
    return y + bias[:, None, None]


def fcn(x: Array, weights: Mapping[str, Array]) -> Array:
    """Output of the tutorial's network for x (N, C, H, W), with neutral weights named conv1, conv2, deconv."""
    return fcn_layers(x, weights)[-1]


def fcn_layers(x: Array, weights: Mapping[str, Array]) -> list[Array]:
    """What its five layers make: convolution, ReLU, convolution, ReLU, deconvolution."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    conv1 = convolution(x.astype(np.float64), w["conv1.weight"], w["conv1.bias"], 1, 1)
    relu1 = np.maximum(conv1, 0)
    conv2 = convolution(relu1, w["conv2.weight"], w["conv2.bias"], 16, 0)
    relu2 = np.maximum(conv2, 0)
    return [conv1, relu1, conv2, relu2, deconvolution(relu2, w["deconv.weight"], w["deconv.bias"], 16)]


def random_weights(seed: int = 0, channels: int = 1) -> dict[str, npt.NDArray[np.float32]]:
    """Weights of the FCN's shapes, at a scale that keeps activations in the hundreds."""
    draw = np.random.default_rng(seed)
    shapes = {
        "conv1.weight": (32, channels, 3, 3), "conv1.bias": (32,),
        "conv2.weight": (1024, 32, 16, 16), "conv2.bias": (1024,),
        "deconv.weight": (1024, channels, 16, 16), "deconv.bias": (channels,),
    }  # fmt: skip
    scale = {"conv1.weight": 0.2, "conv2.weight": 0.01, "deconv.weight": 0.03}
    return {
        name: (draw.standard_normal(shape) * scale.get(name, 0.5)).astype(np.float32) for name, shape in shapes.items()
    }
