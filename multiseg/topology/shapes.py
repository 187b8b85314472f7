"""The vocabulary of layer types, and what each makes of its input: output shapes, weights, multiply-adds.

Types and parameter names are ONNX's (https://onnx.ai/onnx/operators), for one image: shapes leave the batch out, axes
count it as ONNX does (1 is the channels). What ONNX reads off its weight inputs stands among the parameters:
``num_output`` and ``bias_term`` (Caffe's names). Types of ours, where ONNX has no layer: ``Scale`` and ``Crop`` (Caffe's
layers of that name), and ``Add``, ``Mul`` with a constant as ``value`` instead of a second input.

========================== =========================================================================================
Conv, ConvTranspose        num_output, kernel_shape, strides, pads [top, left, bottom, right] or auto_pad SAME_UPPER,
                           dilations, group, bias_term; ConvTranspose also output_padding
Gemm                       num_output, bias_term; takes a vector
MaxPool, AveragePool       kernel_shape, strides, pads or auto_pad, ceil_mode; AveragePool also count_include_pad
GlobalMaxPool, GlobalAveragePool
BatchNormalization         epsilon, affine; weights running_mean, running_var, and where affine weight, bias, or the one of
                           them that affine names
Scale                      bias_term; one weight for each channel
LRN                        size, alpha, beta, bias, and within_channel where not across them
Dropout                    ratio
Relu, Sigmoid, Tanh, Softplus, Abs, Exp, Log, Neg, Sqrt, Identity
LeakyRelu, Elu             alpha; PRelu: num_parameters; Pow: exponent; ThresholdedRelu: alpha; Clip: min, max
Softmax, LogSoftmax        axis
Concat                     axis; Split: axis, split (sizes), an output for each
Sum, Max, Mul, Sub, Div    of several inputs of one shape; Sum also coefficients; Add, Mul: value where of one input
Flatten, Reshape           Reshape: shape without the batch (0 keeps, -1 is the rest); Transpose: perm; Squeeze: axes
Pad                        pads [top, left, bottom, right], mode, value
Slice                      axes, starts, ends; Crop: axis, offset, with the blob whose size it takes as second input
Resize                     mode nearest or linear, scales or sizes [height, width], coordinates
                           (asymmetric, align_corners, half_pixel)
ReduceMean, ReduceSum      axes, keepdims
========================== =========================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from multiseg.topology.layer import Shape

Parameters = Mapping[str, Any]
Inferred = tuple[list[Shape], dict[str, Shape], int]  # output shapes, weights, multiply-adds


class ShapeError(ValueError):
    """A layer cannot take its inputs; the message says why, without the layer's name."""


def infer(type: str, parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Output shapes, weights and multiply-adds of a layer of a known type. Raises ShapeError; KeyError for another type."""
    rule = RULES[type]
    if not inputs:
        raise ShapeError("has no input")
    return rule(parameters, inputs)


def window_pads(parameters: Parameters, size: Shape) -> list[int]:
    """[top, left, bottom, right] of a convolution or pooling over an image of (H, W); auto_pad is resolved for this size.

    SAME_UPPER (TensorFlow's SAME) pads so that the output is the input over the stride, rounded up; the odd one below
    and right (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2).
    """
    if parameters.get("auto_pad") != "SAME_UPPER":
        return list(parameters.get("pads", (0, 0, 0, 0)))
    kernel, strides, dilations = _window(parameters)
    total = [
        max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0) for n, k, s, d in zip(size, kernel, strides, dilations)
    ]
    return [total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2]


def _window(parameters: Parameters) -> tuple[list[int], list[int], list[int]]:
    kernel = list(parameters["kernel_shape"])
    return kernel, list(parameters.get("strides", (1, 1))), list(parameters.get("dilations", (1, 1)))


def _image(shape: Shape) -> Shape:
    if len(shape) != 3:
        raise ShapeError(f"takes images (C, H, W), its input is {shape}")
    return shape


def _same(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    return [inputs[0]], {}, 0


def _convolution(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    channels, *size = _image(inputs[0])
    kernel, strides, dilations = _window(parameters)
    group, outputs = parameters.get("group", 1), parameters["num_output"]
    if channels % group or outputs % group:
        raise ShapeError(f"has {group} groups, which divide its {channels} inputs and {outputs} outputs unevenly")
    pads = window_pads(parameters, tuple(size))
    out = [(size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(2)]
    if min(out) < 1:
        raise ShapeError(f"has a {kernel[0]}x{kernel[1]} kernel, larger than its input of {size[0]}x{size[1]}")
    shape = (outputs, *out)
    weights = {"weight": (outputs, channels // group, *kernel)} | _bias(parameters, outputs)
    return [shape], weights, math.prod(shape) * channels // group * math.prod(kernel)


def _deconvolution(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    channels, *size = _image(inputs[0])
    kernel, strides, dilations = _window(parameters)
    group, outputs = parameters.get("group", 1), parameters["num_output"]
    if channels % group or outputs % group:
        raise ShapeError(f"has {group} groups, which divide its {channels} inputs and {outputs} outputs unevenly")
    if parameters.get("auto_pad") == "SAME_UPPER":
        out = [n * s for n, s in zip(size, strides)]
    else:
        pads, more = parameters.get("pads", (0, 0, 0, 0)), parameters.get("output_padding", (0, 0))
        out = [
            strides[i] * (size[i] - 1) + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2] + more[i]
            for i in range(2)
        ]
    if min(out) < 1:
        raise ShapeError(f"pads away all of its input of {size[0]}x{size[1]}")
    weights = {"weight": (channels, outputs // group, *kernel)} | _bias(parameters, outputs)
    return [(outputs, *out)], weights, math.prod(inputs[0]) * outputs // group * math.prod(kernel)


def _bias(parameters: Parameters, outputs: int) -> dict[str, Shape]:
    return {"bias": (outputs,)} if parameters.get("bias_term", True) else {}


def _gemm(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    if len(inputs[0]) != 1:
        raise ShapeError(f"takes a vector, its input is {inputs[0]}; put a Flatten before it")
    features, outputs = inputs[0][0], parameters["num_output"]
    return [(outputs,)], {"weight": (outputs, features)} | _bias(parameters, outputs), features * outputs


def _pool(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    channels, *size = _image(inputs[0])
    kernel, strides, dilations = _window(parameters)
    pads = window_pads(parameters, tuple(size))
    out = []
    for i in range(2):
        span = size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1
        if span < 0 and not parameters.get("ceil_mode"):
            raise ShapeError(f"has a {kernel[0]}x{kernel[1]} window, larger than its input of {size[0]}x{size[1]}")
        count = (math.ceil(span / strides[i]) if parameters.get("ceil_mode") else span // strides[i]) + 1
        # Caffe's and Torch7's rule: the last window starts within the image or the padding before it
        if parameters.get("ceil_mode") and any(pads) and (count - 1) * strides[i] >= size[i] + pads[i]:
            count -= 1
        out.append(count)
    if min(out) < 1:
        raise ShapeError(f"has a {kernel[0]}x{kernel[1]} window, larger than its input of {size[0]}x{size[1]}")
    return [(channels, *out)], {}, 0


def _global_pool(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    return [(_image(inputs[0])[0], 1, 1)], {}, 0


def _batch_norm(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    one: Shape = (inputs[0][0],)
    named = parameters.get("affine", True)
    affine = {part: one for part in ("weight", "bias") if named in (True, part)}
    return [inputs[0]], {**affine, "running_mean": one, "running_var": one}, 0


def _scale(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    one: Shape = (inputs[0][0],)
    return [inputs[0]], {"weight": one} | ({"bias": one} if parameters.get("bias_term") else {}), 0


def _prelu(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    return [inputs[0]], {"weight": (parameters.get("num_parameters", 1),)}, 0


def _concat(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    axis = axis_index(parameters["axis"], inputs[0])
    for other in inputs[1:]:
        if len(other) != len(inputs[0]) or any(a != b for i, (a, b) in enumerate(zip(other, inputs[0])) if i != axis):
            raise ShapeError(f"joins along axis {axis + 1}, but its inputs {_list(inputs)} differ in others")
    shape = list(inputs[0])
    shape[axis] = sum(each[axis] for each in inputs)
    return [tuple(shape)], {}, 0


def _split(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    axis = axis_index(parameters["axis"], inputs[0])
    sizes = parameters["split"]
    if sum(sizes) != inputs[0][axis]:
        raise ShapeError(f"splits {inputs[0][axis]} into {'+'.join(map(str, sizes))}")
    return [(*inputs[0][:axis], size, *inputs[0][axis + 1 :]) for size in sizes], {}, 0


def _elementwise(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    if any(other != inputs[0] for other in inputs):
        raise ShapeError(f"needs inputs of one shape, they are {_list(inputs)}")
    return [inputs[0]], {}, 0


def _flatten(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    return [(math.prod(inputs[0]),)], {}, 0


def _reshape(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    before = inputs[0]
    shape = [before[i] if size == 0 and i < len(before) else size for i, size in enumerate(parameters["shape"])]
    known = math.prod(size for size in shape if size != -1)
    if shape.count(-1) == 1 and known and math.prod(before) % known == 0:
        shape[shape.index(-1)] = math.prod(before) // known
    if -1 in shape or math.prod(shape) != math.prod(before):
        raise ShapeError(f"cannot make {tuple(parameters['shape'])} of {before}")
    return [tuple(shape)], {}, 0


def _transpose(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    perm = parameters["perm"]
    if perm[0] != 0 or sorted(perm) != list(range(len(inputs[0]) + 1)):
        raise ShapeError(f"cannot order the axes of {inputs[0]} as {tuple(perm)}")
    return [tuple(inputs[0][axis - 1] for axis in perm[1:])], {}, 0


def _squeeze(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    axes = parameters.get("axes")
    gone = {i for i, n in enumerate(inputs[0]) if n == 1} if axes is None else {axis_index(a, inputs[0]) for a in axes}
    if any(inputs[0][axis] != 1 for axis in gone):
        raise ShapeError(f"cannot squeeze axes {axes} of {inputs[0]}")
    return [tuple(n for i, n in enumerate(inputs[0]) if i not in gone)], {}, 0


def _pad(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    channels, height, width = _image(inputs[0])
    top, left, bottom, right = parameters["pads"]
    shape = (channels, height + top + bottom, width + left + right)
    if min(shape) < 1:
        raise ShapeError(f"pads away all of its input of {height}x{width}")
    return [shape], {}, 0


def _slice(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    shape = list(inputs[0])
    for each, start, end in zip(parameters["axes"], parameters["starts"], parameters["ends"]):
        axis = axis_index(each, inputs[0])
        first, last, _ = slice(start, end).indices(shape[axis])
        shape[axis] = last - first
        if shape[axis] < 1:
            raise ShapeError(f"takes {start}:{end} of {inputs[0][axis]} along axis {each}")
    return [tuple(shape)], {}, 0


def crop_bounds(parameters: Parameters, inputs: list[Shape]) -> dict[str, list[int]]:
    """axes, starts and ends of what a Crop cuts out of its first input, to the size of its second."""
    if len(inputs) != 2 or len(inputs[0]) != len(inputs[1]):
        raise ShapeError(f"needs two inputs of one rank, they are {_list(inputs)}")
    first = axis_index(parameters["axis"], inputs[0])
    axes = list(range(first, len(inputs[0])))
    offset = list(parameters["offset"]) * (len(axes) if len(parameters["offset"]) == 1 else 1)
    if len(offset) != len(axes):
        raise ShapeError(f"has {len(offset)} offsets for {len(axes)} axes")
    for axis, start in zip(axes, offset):
        if start + inputs[1][axis] > inputs[0][axis]:
            raise ShapeError(f"cannot cut {inputs[1]} out of {inputs[0]} at offset {start}")
    ends = [start + inputs[1][axis] for axis, start in zip(axes, offset)]
    return {"axes": [axis + 1 for axis in axes], "starts": offset, "ends": ends}


def _crop(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    return _slice(crop_bounds(parameters, inputs), inputs)


def _resize(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    channels, *size = _image(inputs[0])
    out = parameters.get("sizes") or [int(n * s) for n, s in zip(size, parameters["scales"])]
    return [(channels, *out)], {}, 0


def _reduce(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    axes = {axis_index(axis, inputs[0]) for axis in parameters["axes"]}
    if parameters.get("keepdims"):
        return [tuple(1 if i in axes else n for i, n in enumerate(inputs[0]))], {}, 0
    return [tuple(n for i, n in enumerate(inputs[0]) if i not in axes)], {}, 0


def axis_index(axis: int, shape: Shape) -> int:
    """Index into a shape without the batch."""
    index = axis - 1 if axis > 0 else axis + len(shape)
    if axis == 0 or not 0 <= index < len(shape):
        raise ShapeError(f"has no axis {axis} in its input {shape}")
    return index


def _list(shapes: list[Shape]) -> str:
    return " and ".join(map(str, shapes))


RULES: dict[str, Callable[[Parameters, list[Shape]], Inferred]] = {
    "Conv": _convolution,
    "ConvTranspose": _deconvolution,
    "Gemm": _gemm,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalMaxPool": _global_pool,
    "GlobalAveragePool": _global_pool,
    "BatchNormalization": _batch_norm,
    "Scale": _scale,
    "PRelu": _prelu,
    "Concat": _concat,
    "Split": _split,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Pad": _pad,
    "Slice": _slice,
    "Crop": _crop,
    "Resize": _resize,
    "ReduceMean": _reduce,
    "ReduceSum": _reduce,
    **dict.fromkeys(("Sum", "Max", "Mul", "Add", "Sub", "Div"), _elementwise),
    **dict.fromkeys(
        (
            "LRN", "Dropout", "Relu", "LeakyRelu", "Elu", "ThresholdedRelu", "Clip", "Sigmoid", "Tanh", "Softplus", "Abs",
            "Exp", "Log", "Neg", "Sqrt", "Pow", "Softmax", "LogSoftmax", "Identity",
        ),
        _same,
    ),
}  # fmt: skip
