"""A network in float64 by PyTorch's functions, from its description: for sizes where neutral_math's definitions are too slow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from multiseg.topology import Layer, Topology

Tensor = torch.Tensor
Parameters = Mapping[str, Any]


def evaluate(
    topology: Topology, weights: Mapping[str, np.ndarray], images: np.ndarray, given: Mapping[str, np.ndarray]
) -> Iterator[tuple[Layer, np.ndarray]]:
    """What each layer makes of ``images`` (N, C, H, W); of a type beyond the vocabulary it is ``given``.

    Ends where that is not. Layers with several outputs are computed, and left out of the result.
    """
    values: dict[str, Tensor] = {topology.input: torch.from_numpy(images).double()}
    for layer in topology.layers:
        parts = {part: torch.from_numpy(weights[f"{layer.name}.{part}"]).double() for part in layer.weights}
        inputs = [values[name] for name in layer.inputs]
        if layer.type in TYPES:
            made = TYPES[layer.type](layer.parameters, parts, *inputs)
        elif layer.name in given:
            made = torch.from_numpy(given[layer.name]).double()
        else:
            return
        values.update(zip(layer.outputs, made if isinstance(made, tuple) else [made], strict=True))
        if len(layer.outputs) == 1:
            yield layer, values[layer.name].numpy()


def _per_channel(vector: Tensor, x: Tensor) -> Tensor:
    return vector.reshape(-1, *(1,) * (x.dim() - 2))


def _convolution(p: Parameters, w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return F.conv2d(x, w["weight"], w.get("bias"), p["strides"], p["pads"][:2], p["dilations"], p["group"])


def _deconvolution(p: Parameters, w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    pads = p["pads"][:2]
    return F.conv_transpose2d(x, w["weight"], w.get("bias"), p["strides"], pads, 0, p["group"], p["dilations"])


def _pool(p: Parameters, x: Tensor, filled: float, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """Windows of an image that is padded, and filled up where rounding up lets windows reach beyond."""
    out = []
    for i in range(2):
        k, s, pad, n = p["kernel_shape"][i], p["strides"][i], p["pads"][i], x.shape[2 + i]
        span = n + 2 * pad - k
        count = (-(-span // s) if p["ceil_mode"] else span // s) + 1
        out.append(count - (any(p["pads"]) and (count - 1) * s >= n + pad))
    need = [(out[i] - 1) * p["strides"][i] + p["kernel_shape"][i] - x.shape[2 + i] - p["pads"][i] for i in range(2)]
    image = F.pad(x, (p["pads"][1], max(need[1], 0), p["pads"][0], max(need[0], 0)), value=filled)
    windows = image.unfold(2, p["kernel_shape"][0], p["strides"][0]).unfold(3, p["kernel_shape"][1], p["strides"][1])
    return reduce(windows[:, :, : out[0], : out[1]])


def _average(p: Parameters, w: Any, x: Tensor) -> Tensor:
    """Sums over what they count: pixels and padding, not what rounding up adds."""
    counted = F.pad(torch.ones_like(x), (p["pads"][1], p["pads"][1], p["pads"][0], p["pads"][0]), value=1.0)
    plain = {**p, "pads": [0] * 4}
    total = _pool(p, x, 0.0, lambda windows: windows.sum((-2, -1)))
    count = _pool(plain, counted, 0.0, lambda windows: windows.sum((-2, -1)))[:, :, : total.shape[2], : total.shape[3]]
    return total / count


def _lrn(p: Parameters, w: Any, x: Tensor) -> Tensor:
    if not p.get("within_channel"):
        return F.local_response_norm(x, p["size"], p["alpha"], p["beta"], p["bias"])
    mean = F.avg_pool2d(x * x, p["size"], 1, (p["size"] - 1) // 2)
    return x * (p["bias"] + p["alpha"] * mean) ** -p["beta"]


def _batch_norm(p: Parameters, w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    mean, variance = (_per_channel(w[part], x) for part in ("running_mean", "running_var"))
    return (x - mean) / torch.sqrt(variance + p["epsilon"])


def _scale(p: Parameters, w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return x * _per_channel(w["weight"], x) + (_per_channel(w["bias"], x) if p["bias_term"] else 0)


def _crop(p: Parameters, w: Any, x: Tensor, like: Tensor) -> Tensor:
    axes = range(p["axis"], x.dim())
    offsets = p["offset"] * (len(axes) if len(p["offset"]) == 1 else 1)
    for axis, offset in zip(axes, offsets, strict=True):
        x = x.narrow(axis, offset, like.shape[axis])
    return x


def _sum(p: Parameters, w: Any, *x: Tensor) -> Tensor:
    return sum(c * each for c, each in zip(p.get("coefficients", [1] * len(x)), x, strict=True))  # type: ignore


def _product(p: Parameters, w: Any, *x: Tensor) -> Tensor:
    return x[0] * p["value"] if len(x) == 1 else torch.stack(x).prod(0)


TYPES: dict[str, Callable[..., Any]] = {
    "Conv": _convolution,
    "ConvTranspose": _deconvolution,
    "Gemm": lambda p, w, x: F.linear(x, w["weight"], w.get("bias")),
    "MaxPool": lambda p, w, x: _pool(p, x, -torch.inf, lambda windows: windows.amax((-2, -1))),
    "AveragePool": _average,
    "GlobalMaxPool": lambda p, w, x: x.amax((2, 3), keepdim=True),
    "GlobalAveragePool": lambda p, w, x: x.mean((2, 3), keepdim=True),
    "BatchNormalization": _batch_norm,
    "Scale": _scale,
    "LRN": _lrn,
    "Dropout": lambda p, w, x: x,
    "Identity": lambda p, w, x: x,
    "Relu": lambda p, w, x: x.relu(),
    "LeakyRelu": lambda p, w, x: F.leaky_relu(x, p["alpha"]),
    "PRelu": lambda p, w, x: F.prelu(x, w["weight"]),
    "Elu": lambda p, w, x: F.elu(x, p["alpha"]),
    "Sigmoid": lambda p, w, x: x.sigmoid(),
    "Swish": lambda p, w, x: x * (p["alpha"] * x).sigmoid(),
    "Tanh": lambda p, w, x: x.tanh(),
    "Softplus": lambda p, w, x: F.softplus(x),
    "Abs": lambda p, w, x: x.abs(),
    "Exp": lambda p, w, x: x.exp(),
    "Log": lambda p, w, x: x.log(),
    "Pow": lambda p, w, x: x ** p["exponent"],
    "Add": lambda p, w, x: x + p["value"],
    "Clip": lambda p, w, x: x.clamp(p["min"], p["max"]),
    "Mul": _product,
    "Sum": _sum,
    "Sub": lambda p, w, x, y: x - y,
    "Max": lambda p, w, *x: torch.stack(x).amax(0),
    "Softmax": lambda p, w, x: x.softmax(p["axis"]),
    "Concat": lambda p, w, *x: torch.cat(x, p["axis"]),
    "Split": lambda p, w, x: x.split(p["split"], p["axis"]),
    "Crop": _crop,
    "Flatten": lambda p, w, x: x.flatten(1),
    "Reshape": lambda p, w, x: x.reshape(len(x), *p["shape"]),
    "ReduceSum": lambda p, w, x: x.sum(p["axes"]),
    "ReduceMean": lambda p, w, x: x.mean(p["axes"]),
}
