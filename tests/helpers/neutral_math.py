"""What a neutral description says a network computes, in float64 numpy, written from the definitions of ONNX's operators."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def run(description: Mapping[str, Any], weights: Mapping[str, Array], x: Array) -> Array:
    """Output for images x (N, C, H, W)."""
    values = {description["input"]: x.astype(np.float64)}
    for layer in description["layers"]:
        prefix = f"{layer['name']}."
        own = {name[len(prefix) :]: w.astype(np.float64) for name, w in weights.items() if name.startswith(prefix)}
        made = LAYERS[layer["type"]](layer["parameters"], own, *[values[name] for name in layer["inputs"]])
        outputs = layer.get("outputs") or [layer["name"]]
        values.update(zip(outputs, made if isinstance(made, list) else [made], strict=True))
    return values[description["outputs"][0]]


def _windows(x: Array, p: Mapping[str, Any], fill: float) -> Array:
    """(N, C, OH, OW, KH, KW): every window of the padded images."""
    kernel, strides, dilations = p["kernel_shape"], p.get("strides", [1, 1]), p.get("dilations", [1, 1])
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if p.get("auto_pad") == "SAME_UPPER":
        totals = [
            max((math.ceil(n / s) - 1) * s + k - n, 0) for n, s, k in zip(x.shape[2:], strides, spans, strict=True)
        ]
        borders = [(total // 2, total - total // 2) for total in totals]
    else:
        top, left, bottom, right = p.get("pads", [0, 0, 0, 0])
        borders = [(top, bottom), (left, right)]
    x = np.pad(x, [(0, 0), (0, 0), *borders], constant_values=fill)
    windows = np.lib.stride_tricks.sliding_window_view(x, spans, (2, 3))
    return windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def _bias(w: Mapping[str, Array]) -> Array | float:
    return w["bias"][:, None, None] if "bias" in w else 0.0


def conv(p: Mapping[str, Any], w: Mapping[str, Array], x: Array) -> Array:
    group = p.get("group", 1)
    parts = [
        np.einsum("nchwij,ocij->nohw", _windows(part, p, 0), kernels, optimize=True)
        for part, kernels in zip(np.split(x, group, 1), np.split(w["weight"], group), strict=True)
    ]
    return np.concatenate(parts, 1) + _bias(w)


def conv_transpose(p: Mapping[str, Any], w: Mapping[str, Array], x: Array) -> Array:
    (n, _, height, width), (_, out, kh, kw) = x.shape, w["weight"].shape
    (sh, sw), (top, left, bottom, right) = p["strides"], p["pads"]
    more = p.get("output_padding", [0, 0])
    y = np.zeros((n, out, (height - 1) * sh + kh + more[0], (width - 1) * sw + kw + more[1]))
    for row in range(height):
        for column in range(width):
            patch = np.einsum("nc,coij->noij", x[:, :, row, column], w["weight"])
            y[:, :, row * sh : row * sh + kh, column * sw : column * sw + kw] += patch
    return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right] + _bias(w)


def average_pool(p: Mapping[str, Any], w: Mapping[str, Array], x: Array) -> Array:
    counted = np.full(x.shape, 1.0)
    return _windows(x, p, 0).sum((4, 5)) / _windows(counted, p, float(p["count_include_pad"])).sum((4, 5))


def batch_norm(p: Mapping[str, Any], w: Mapping[str, Array], x: Array) -> Array:
    shape = (-1, *[1] * (x.ndim - 2))
    scale = w.get("weight", np.ones(x.shape[1])) / np.sqrt(w["running_var"] + p["epsilon"])
    return (x - w["running_mean"].reshape(shape)) * scale.reshape(shape) + w.get("bias", np.zeros(x.shape[1])).reshape(
        shape
    )


def lrn(p: Mapping[str, Any], w: Mapping[str, Array], x: Array) -> Array:
    squares, half = np.zeros_like(x), p["size"] // 2
    for channel in range(x.shape[1]):
        squares[:, channel] = np.square(x[:, max(channel - half, 0) : channel + half + 1]).sum(1)
    return x / (p["bias"] + p["alpha"] / p["size"] * squares) ** p["beta"]


def resize(p: Mapping[str, Any], w: Mapping[str, Array], x: Array) -> Array:
    for axis, out in ((2, p["sizes"][0]), (3, p["sizes"][1])):
        size, at = x.shape[axis], np.arange(out, dtype=np.float64)
        if p["coordinates"] == "align_corners":
            at *= (size - 1) / max(out - 1, 1)
        elif p["coordinates"] == "half_pixel":
            at = (at + 0.5) * size / out - 0.5
        else:
            at *= size / out
        if p["mode"] == "nearest":
            x = np.take(x, np.clip(np.floor(at), 0, size - 1).astype(int), axis)
            continue
        at = np.clip(at, 0, size - 1)
        low = np.floor(at).astype(int)
        part = (at - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = np.take(x, low, axis) * (1 - part) + np.take(x, np.minimum(low + 1, size - 1), axis) * part
    return x


def softmax(p: Mapping[str, Any], w: Mapping[str, Array], x: Array) -> Array:
    powers = np.exp(x - x.max(p["axis"], keepdims=True))
    return powers / powers.sum(p["axis"], keepdims=True)


def pad(p: Mapping[str, Any], w: Mapping[str, Array], x: Array) -> Array:
    top, left, bottom, right = p["pads"]
    borders = [(0, 0), (0, 0), (top, bottom), (left, right)]
    return np.pad(x, borders, constant_values=p["value"]) if p["mode"] == "constant" else np.pad(x, borders, p["mode"])


def cut(p: Mapping[str, Any], w: Mapping[str, Array], x: Array) -> Array:
    for axis, start, end in zip(p["axes"], p["starts"], p["ends"], strict=True):
        x = x[(slice(None),) * axis + (slice(start, end),)]
    return x


def crop(p: Mapping[str, Any], w: Mapping[str, Array], x: Array, like: Array) -> Array:
    axes = list(range(p["axis"], x.ndim))
    starts = list(p["offset"]) * (len(axes) if len(p["offset"]) == 1 else 1)
    ends = [start + like.shape[axis] for axis, start in zip(axes, starts, strict=True)]
    return cut({"axes": axes, "starts": starts, "ends": ends}, w, x)


def _each(function: Callable[[Array], Array]) -> Callable[..., Array]:
    return lambda p, w, x: function(x)


LAYERS: dict[str, Callable[..., Any]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": lambda p, w, x: x @ w["weight"].T + w.get("bias", 0.0),
    "MaxPool": lambda p, w, x: _windows(x, p, -np.inf).max((4, 5)),
    "AveragePool": average_pool,
    "GlobalAveragePool": _each(lambda x: x.mean((2, 3), keepdims=True)),
    "BatchNormalization": batch_norm,
    "Scale": lambda p, w, x: x * w["weight"][:, None, None] + _bias(w),
    "LRN": lrn,
    "Relu": _each(lambda x: np.maximum(x, 0)),
    "Sigmoid": _each(lambda x: 1 / (1 + np.exp(-x))),
    "Tanh": _each(np.tanh),
    "Swish": lambda p, w, x: x / (1 + np.exp(-p.get("alpha", 1.0) * x)),
    "Softplus": _each(lambda x: np.log1p(np.exp(x))),
    "Abs": _each(np.abs),
    "Elu": lambda p, w, x: np.where(x > 0, x, p["alpha"] * np.expm1(x)),
    "LeakyRelu": lambda p, w, x: np.where(x > 0, x, p["alpha"] * x),
    "Clip": lambda p, w, x: np.clip(x, p.get("min"), p.get("max")),
    "Pow": lambda p, w, x: x ** p["exponent"],
    "Softmax": softmax,
    "LogSoftmax": lambda p, w, x: np.log(softmax(p, w, x)),
    "Dropout": _each(lambda x: x),
    "Concat": lambda p, w, *x: np.concatenate(x, p["axis"]),
    "Split": lambda p, w, x: np.split(x, np.cumsum(p["split"])[:-1], p["axis"]),
    "Sum": lambda p, w, *x: sum(x),
    "Mul": lambda p, w, *x: x[0] * (x[1] if len(x) > 1 else p["value"]),
    "Add": lambda p, w, x: x + p["value"],
    "Sub": lambda p, w, a, b: a - b,
    "Max": lambda p, w, a, b: np.maximum(a, b),
    "Flatten": _each(lambda x: x.reshape(len(x), -1)),
    "Reshape": lambda p, w, x: x.reshape(len(x), *p["shape"]),
    "Transpose": lambda p, w, x: x.transpose(p["perm"]),
    "Pad": pad,
    "Slice": cut,
    "Crop": crop,
    "Resize": resize,
    "ReduceMean": lambda p, w, x: x.mean(tuple(p["axes"]), keepdims=bool(p["keepdims"])),
    "ReduceSum": lambda p, w, x: x.sum(tuple(p["axes"]), keepdims=bool(p["keepdims"])),
}
