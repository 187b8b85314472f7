"""The tutorial's FCN in float64 NumPy, of the layers of neutral_math."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from helpers.neutral_math import Array, conv, conv_transpose


def fcn(x: Array, weights: Mapping[str, Array]) -> Array:
    """Return the output of the tutorial's network for x (N, C, H, W), with neutral weights named conv1, conv2, deconv."""
    return fcn_layers(x, weights)[-1]


def fcn_layers(x: Array, weights: Mapping[str, Array]) -> list[Array]:
    """Return the outputs of its five layers: convolution, ReLU, convolution, ReLU, deconvolution."""

    def part(name: str) -> dict[str, Array]:
        return {key: weights[f"{name}.{key}"].astype(np.float64) for key in ("weight", "bias")}

    conv1 = conv({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, part("conv1"), x.astype(np.float64))
    relu1 = np.maximum(conv1, 0)
    conv2 = conv({"kernel_shape": [16, 16], "strides": [16, 16]}, part("conv2"), relu1)
    relu2 = np.maximum(conv2, 0)
    deconvolution = {"strides": [16, 16], "pads": [0, 0, 0, 0]}
    return [conv1, relu1, conv2, relu2, conv_transpose(deconvolution, part("deconv"), relu2)]


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
