"""Random parameters for each layer type of the vocabulary: one row for each type in DRAWN."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from typing import Any

from multiseg.errors import ModelError
from multiseg.topology import Shape

Parameters = dict[str, Any]
Draw = Callable[[random.Random, Shape], Parameters]  # the parameters of a layer whose first input has this shape


def _window(draw: random.Random, most: int = 3) -> Parameters:
    kernel = [draw.randint(1, most), draw.randint(1, most)] if draw.random() < 0.4 else [draw.randint(1, most)] * 2
    strides = [draw.randint(1, 2), draw.randint(1, 2)] if draw.random() < 0.4 else [draw.randint(1, 2)] * 2
    window: Parameters = {"kernel_shape": kernel, "strides": strides}
    kind = draw.random()
    if kind < 0.2:
        window["auto_pad"] = "SAME_UPPER"
    elif kind < 0.6:
        window["pads"] = [min(size // 2, draw.randint(0, 1)) for size in kernel] * 2
    elif kind < 0.7:
        window["pads"] = [draw.randint(0, size - 1) for size in [*kernel, *kernel]]
    return window


def _groups(draw: random.Random, channels: int) -> int:
    return draw.choice([1, 1, 1, *(number for number in range(2, channels + 1) if channels % number == 0)])


def convolution(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a convolution or a transposed convolution; of dilated ones the stride is 1."""
    group = _groups(draw, shape[0])
    parameters = {"num_output": group * draw.randint(1, 3), "group": group, "bias_term": draw.random() < 0.7}
    window = _window(draw)
    if draw.random() < 0.25:
        window |= {"dilations": [2, draw.choice([1, 2])], "strides": [1, 1]}
    return {**parameters, **window}


def transposed(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a transposed convolution, some with output padding."""
    parameters = convolution(draw, shape)
    if "auto_pad" not in parameters and draw.random() < 0.2:
        parameters["output_padding"] = [draw.randint(0, stride - 1) for stride in parameters["strides"]]
    return parameters


def max_pool(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a maximum pooling."""
    return {**_window(draw), "ceil_mode": draw.random() < 0.4}


def average_pool(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of an average pooling."""
    window = _window(draw)
    counted = draw.random() < 0.5 and "auto_pad" not in window
    return {**window, "ceil_mode": draw.random() < 0.4, "count_include_pad": counted}


def batch_norm(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a batch normalisation, of all kinds of statistics that files state."""
    parameters: Parameters = {"epsilon": draw.choice([1e-5, 1e-3, 1e-2]), "affine": draw.random() < 0.7}
    statistics = draw.choice(["", "", "batch", "stored"])
    if statistics == "batch" and math.prod(shape[1:]) > 1:  # one value has no variance, which PyTorch refuses
        parameters["prediction_statistics"] = "batch"
    if statistics == "stored":
        parameters["training_statistics"] = "stored"
    return parameters


def dropout(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a dropout of elements, or of whole channels of images."""
    return {"ratio": draw.choice([0.3, 0.5]), "channelwise": draw.choice([True, False]) and len(shape) == 3}


def lrn(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a local response normalisation. Raises ModelError without an image."""
    if len(shape) != 3:
        raise ModelError("frameworks normalise images only")
    return {
        "size": draw.choice([3, 5]), "alpha": draw.choice([1e-4, 0.5]), "beta": draw.choice([0.75, 0.5]),
        "bias": draw.choice([1.0, 2.0]), "within_channel": draw.random() < 0.3,
    }  # fmt: skip


def resize(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a resizing by a factor or to a size."""
    mode = draw.choice(["nearest", "linear"])
    coordinates = draw.choice(["half_pixel", "asymmetric"] if mode == "nearest" else ["half_pixel", "align_corners"])
    if coordinates != "align_corners" and draw.random() < 0.6:
        return {"mode": mode, "scales": [float(draw.randint(1, 3)), 2.0], "coordinates": coordinates}
    sizes = [size + draw.randint(-1, 6) for size in shape[1:]]
    return {"mode": mode, "sizes": [max(size, 1) for size in sizes], "coordinates": coordinates}


def pad(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a padding."""
    pads = [draw.randint(0, 2) for _ in range(4)]
    mode = draw.choice(["constant", "constant", "reflect", "edge"])
    return {"pads": pads, "mode": mode} | ({"value": draw.choice([0.0, 0.5])} if mode == "constant" else {})


def cut(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a slice along one axis or two."""
    axes = sorted(draw.sample(range(1, len(shape) + 1), draw.randint(1, min(2, len(shape)))))
    starts = [draw.randint(0, shape[axis - 1] // 2) for axis in axes]
    ends = [draw.choice([1000, start + 1, shape[axis - 1]]) for axis, start in zip(axes, starts, strict=True)]
    return {"axes": axes, "starts": starts, "ends": ends}


def split(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a split into two parts."""
    axis = draw.randint(1, len(shape))
    size = shape[axis - 1]
    first = draw.randint(1, max(size - 1, 1))
    return {"axis": axis, "split": [first, size - first]}


def reshape(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a reshaping that keeps the number of elements."""
    if len(shape) != 3:
        return {"shape": [-1, 1, 1]}
    channels, height, width = shape
    others = [channels * height, 1, width], [-1, width, height], [height * width, channels, 1]
    return {"shape": list(draw.choice([[-1], [0, -1, 1], *others]))}


def reduced(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a mean or a sum over axes."""
    if len(shape) == 3:
        axes = draw.choice([[2, 3], [1], [2], [3]])
        # rows or columns of channels are read back from TensorFlow as (N, L, C), with an operation that transposes them
        return {"axes": axes, "keepdims": draw.random() < 0.7 or axes in ([2], [3])}
    return {"axes": [draw.randint(1, len(shape))], "keepdims": True}


def clip(draw: random.Random, shape: Shape) -> Parameters:
    """Return the limits of a clipping."""
    return draw.choice([{"min": -0.5, "max": 0.5}, {"min": 0.0, "max": 6.0}, {"min": -0.25}, {"max": 0.75}])


def prelu(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a PReLU with one slope, or one for each channel."""
    return {"num_parameters": draw.choice([1, shape[0]])}


def summed(draw: random.Random, shape: Shape) -> Parameters:
    """Return the parameters of a sum, some with coefficients."""
    return {"coefficients": [draw.choice([1.0, 2.0]), draw.choice([-1.0, 0.5])]} if draw.random() < 0.4 else {}


def _with(**choices: list[Any]) -> Draw:
    """Return a draw of one value for each parameter."""
    return lambda draw, shape: {key: draw.choice(values) for key, values in choices.items()}


def _none(draw: random.Random, shape: Shape) -> Parameters:
    return {}


DRAWN: Mapping[str, Draw] = {
    "Conv": convolution,
    "ConvTranspose": transposed,
    "Gemm": lambda draw, shape: {"num_output": draw.randint(2, 6), "bias_term": draw.random() < 0.7},
    "Resize": resize,
    "MaxUnpool": _none,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Scale": _with(bias_term=[True, False]),
    "LRN": lrn,
    "Dropout": dropout,
    "LeakyRelu": _with(alpha=[0.01, 0.3]),
    "PRelu": prelu,
    "Elu": _with(alpha=[1.0, 0.7]),
    "ThresholdedRelu": _with(alpha=[0.0, 0.3], value=[0.0, -0.5]),
    "Clip": clip,
    "Swish": _with(alpha=[1.0, 1.5]),
    "Pow": _with(exponent=[2.0, 0.5, 1.5, 3.0]),
    "Softmax": _with(axis=[1, 1, -1]),
    "LogSoftmax": _with(axis=[1]),
    "Sum": summed,
    "Concat": _with(axis=[1, 1, 2, -1]),
    "Split": split,
    "Slice": cut,
    "Crop": lambda draw, shape: {"axis": 2, "offset": draw.choice([[0], [1], [0, 1]])},
    "Pad": pad,
    "Reshape": reshape,
    "Transpose": _with(perm=[[0, 1, 3, 2], [0, 2, 3, 1], [0, 3, 1, 2]]),
    "ReduceMean": reduced,
    "ReduceSum": reduced,
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool", "Flatten", "Squeeze", "Max"), _none),
    **dict.fromkeys(("Identity", "Relu", "Sigmoid", "Tanh", "Softplus", "Abs", "Exp", "Log", "Neg", "Sqrt"), _none),
    **dict.fromkeys(("Mul", "Add", "Sub", "Div"), _with(value=[None, 0.5, -2.0, 3.0])),
}  # fmt: skip
