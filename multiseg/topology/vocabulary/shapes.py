"""Shape inference: what each layer type makes of its input: output shapes, weights and multiply-adds.

A rule takes parameters with defaults filled in and the shapes of the inputs, without the batch. Formulas:
https://onnx.ai/onnx/operators, and src/caffe/layers/pooling_layer.cpp for rounding up. Images are (C, H, W).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from multiseg.topology.layer import Shape

Parameters = Mapping[str, Any]
Inferred = tuple[list[Shape], dict[str, Shape], int]  # output shapes, weights, multiply-adds


class ShapeError(ValueError):
    """A layer cannot take its inputs; the message gives the reason without the layer's name."""


def window_pads(parameters: Parameters, size: Shape) -> list[int]:
    """Return [top, left, bottom, right] of a convolution or pooling over an image of (H, W), auto_pad resolved for this size.

    SAME_UPPER (TensorFlow's SAME) pads so that the output is the input over the stride, rounded up; the odd
    row and column are below and to the right (https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2).
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


def same_shape(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of the first input: of layers that change values alone."""
    return [inputs[0]], {}, 0


def convolution(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return what a convolution makes; weights are OIHW."""
    channels, *size = _image(inputs[0])
    kernel, strides, dilations = _window(parameters)
    group, outputs = parameters["group"], parameters["num_output"]
    if channels % group or outputs % group:
        raise ShapeError(f"has {group} groups, which divide its {channels} inputs and {outputs} outputs unevenly")
    pads = window_pads(parameters, tuple(size))
    out = [(size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(2)]
    if min(out) < 1:
        raise ShapeError(f"has a {kernel[0]}x{kernel[1]} kernel, larger than its input of {size[0]}x{size[1]}")
    shape = (outputs, *out)
    weights = {"weight": (outputs, channels // group, *kernel)} | _bias(parameters, outputs)
    return [shape], weights, math.prod(shape) * channels // group * math.prod(kernel)


def deconvolution(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return what a transposed convolution makes; weights are IOHW."""
    channels, *size = _image(inputs[0])
    kernel, strides, dilations = _window(parameters)
    group, outputs = parameters["group"], parameters["num_output"]
    if channels % group or outputs % group:
        raise ShapeError(f"has {group} groups, which divide its {channels} inputs and {outputs} outputs unevenly")
    if parameters.get("auto_pad") == "SAME_UPPER":
        out = [n * s for n, s in zip(size, strides)]
    else:
        pads, more = parameters["pads"], parameters["output_padding"]
        out = [
            strides[i] * (size[i] - 1) + (kernel[i] - 1) * dilations[i] + 1 - pads[i] - pads[i + 2] + more[i]
            for i in range(2)
        ]
    if min(out) < 1:
        raise ShapeError(f"pads away all of its input of {size[0]}x{size[1]}")
    weights = {"weight": (channels, outputs // group, *kernel)} | _bias(parameters, outputs)
    return [(outputs, *out)], weights, math.prod(inputs[0]) * outputs // group * math.prod(kernel)


def _bias(parameters: Parameters, outputs: int) -> dict[str, Shape]:
    return {"bias": (outputs,)} if parameters["bias_term"] else {}


def gemm(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return what a dense layer makes of a vector; weights are (outputs, features)."""
    if len(inputs[0]) != 1:
        raise ShapeError(f"takes a vector, its input is {inputs[0]}; put a Flatten before it")
    features, outputs = inputs[0][0], parameters["num_output"]
    return [(outputs,)], {"weight": (outputs, features)} | _bias(parameters, outputs), features * outputs


def pool(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return what a pooling makes."""
    channels, *size = _image(inputs[0])
    kernel, strides, dilations = _window(parameters)
    pads = window_pads(parameters, tuple(size))
    out = []
    for i in range(2):
        span = size[i] + pads[i] + pads[i + 2] - (kernel[i] - 1) * dilations[i] - 1
        if span < 0 and not parameters["ceil_mode"]:
            raise ShapeError(f"has a {kernel[0]}x{kernel[1]} window, larger than its input of {size[0]}x{size[1]}")
        count = (math.ceil(span / strides[i]) if parameters["ceil_mode"] else span // strides[i]) + 1
        # Caffe's and Torch7's rule: the last window starts within the image or the padding before it
        if parameters["ceil_mode"] and any(pads) and (count - 1) * strides[i] >= size[i] + pads[i]:
            count -= 1
        out.append(count)
    if min(out) < 1:
        raise ShapeError(f"has a {kernel[0]}x{kernel[1]} window, larger than its input of {size[0]}x{size[1]}")
    return [(channels, *out)] * (2 if parameters.get("indices") else 1), {}, 0


def unpool(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of an image whose pixels are at the indices that the second input gives."""
    channels, *size = _image(inputs[0])
    if len(inputs) != 2 or inputs[1] != inputs[0]:
        raise ShapeError(f"needs values and indices of one shape, they are {_list(inputs)}")
    out = parameters.get("sizes") or [int(n * s) for n, s in zip(size, parameters["scales"])]
    return [(channels, *out)], {}, 0


def global_pool(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return one pixel for each channel."""
    return [(_image(inputs[0])[0], 1, 1)], {}, 0


def batch_norm(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of the input, and statistics, weight and bias for each channel."""
    channels: Shape = (inputs[0][0],)
    affine = {part: channels for part in ("weight", "bias") if parameters["affine"] in (True, part)}
    stored = {"running_mean": channels, "running_var": channels} if parameters["stored"] else {}
    return [inputs[0]], {**affine, **stored}, 0


def scale(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of the input, and a weight and perhaps a bias for each channel."""
    channels: Shape = (inputs[0][0],)
    return [inputs[0]], {"weight": channels} | ({"bias": channels} if parameters["bias_term"] else {}), 0


def prelu(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of the input, and one slope for each channel or for all."""
    return [inputs[0]], {"weight": (parameters["num_parameters"],)}, 0


def concat(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of all inputs one after the other along an axis."""
    axis = axis_index(parameters["axis"], inputs[0])
    for other in inputs[1:]:
        if len(other) != len(inputs[0]) or any(a != b for i, (a, b) in enumerate(zip(other, inputs[0])) if i != axis):
            raise ShapeError(f"joins along axis {axis + 1}, but its inputs {_list(inputs)} differ in others")
    shape = list(inputs[0])
    shape[axis] = sum(other[axis] for other in inputs)
    return [tuple(shape)], {}, 0


def split(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shapes of the parts along an axis."""
    axis = axis_index(parameters["axis"], inputs[0])
    sizes = parameters["split"]
    if sum(sizes) != inputs[0][axis]:
        raise ShapeError(f"splits {inputs[0][axis]} into {'+'.join(map(str, sizes))}")
    return [(*inputs[0][:axis], size, *inputs[0][axis + 1 :]) for size in sizes], {}, 0


def elementwise(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the one shape that all inputs have."""
    if any(other != inputs[0] for other in inputs):
        raise ShapeError(f"needs inputs of one shape, they are {_list(inputs)}")
    return [inputs[0]], {}, 0


def product(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the one shape of the inputs; those after the first may also have one pixel, a factor for each channel."""
    first = inputs[0]
    per_channel = (*first[:1], *(1,) * (len(first) - 1))
    if any(other not in (first, per_channel) for other in inputs):
        raise ShapeError(
            f"needs inputs of one shape, or of one value for each channel of the first; they are {_list(inputs)}"
        )
    return [first], {}, 0


def flatten(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape as a vector."""
    return [(math.prod(inputs[0]),)], {}, 0


def reshape(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the new shape."""
    before = inputs[0]
    shape = [before[i] if size == 0 and i < len(before) else size for i, size in enumerate(parameters["shape"])]
    known = math.prod(size for size in shape if size != -1)
    if shape.count(-1) == 1 and known and math.prod(before) % known == 0:
        shape[shape.index(-1)] = math.prod(before) // known
    if -1 in shape or math.prod(shape) != math.prod(before):
        raise ShapeError(f"cannot make {tuple(parameters['shape'])} of {before}")
    return [tuple(shape)], {}, 0


def transpose(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape with its axes in another order."""
    perm = parameters["perm"]
    if perm[0] != 0 or sorted(perm) != list(range(len(inputs[0]) + 1)):
        raise ShapeError(f"cannot order the axes of {inputs[0]} as {tuple(perm)}")
    return [tuple(inputs[0][axis - 1] for axis in perm[1:])], {}, 0


def squeeze(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape without axes of size 1."""
    axes = parameters.get("axes")
    removed = {i for i, n in enumerate(inputs[0]) if n == 1}
    if axes is not None:
        removed = {axis_index(axis, inputs[0]) for axis in axes}
    if any(inputs[0][axis] != 1 for axis in removed):
        raise ShapeError(f"cannot squeeze axes {axes} of {inputs[0]}")
    return [tuple(n for i, n in enumerate(inputs[0]) if i not in removed)], {}, 0


def pad(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of the padded image."""
    channels, height, width = _image(inputs[0])
    top, left, bottom, right = parameters["pads"]
    shape = (channels, height + top + bottom, width + left + right)
    if min(shape) < 1:
        raise ShapeError(f"pads away all of its input of {height}x{width}")
    if parameters["mode"] == "reflect" and (max(top, bottom) >= height or max(left, right) >= width):
        raise ShapeError(f"reflects as many pixels as its input of {height}x{width} has, or more")
    return [shape], {}, 0


def cut(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of a part of the input (Slice)."""
    shape = list(inputs[0])
    for number, start, end in zip(parameters["axes"], parameters["starts"], parameters["ends"]):
        axis = axis_index(number, inputs[0])
        first, last, _ = slice(start, end).indices(shape[axis])
        shape[axis] = last - first
        if shape[axis] < 1:
            raise ShapeError(f"takes {start}:{end} of {inputs[0][axis]} along axis {number}")
    return [tuple(shape)], {}, 0


def crop_bounds(parameters: Parameters, inputs: list[Shape]) -> dict[str, list[int]]:
    """Return axes, starts and ends of what a Crop cuts out of its first input, to the size of its second. Raises ShapeError."""
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


def crop(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of a part of the first input of the size of the second."""
    return cut(crop_bounds(parameters, inputs), inputs)


def resize(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape of the resized image."""
    channels, *size = _image(inputs[0])
    out = parameters.get("sizes") or [int(n * s) for n, s in zip(size, parameters["scales"])]
    return [(channels, *out)], {}, 0


def reduce(parameters: Parameters, inputs: list[Shape]) -> Inferred:
    """Return the shape without the reduced axes, or with size 1 there."""
    axes = {axis_index(axis, inputs[0]) for axis in parameters["axes"]}
    if parameters["keepdims"]:
        return [tuple(1 if i in axes else n for i, n in enumerate(inputs[0]))], {}, 0
    return [tuple(n for i, n in enumerate(inputs[0]) if i not in axes)], {}, 0


def axis_index(axis: int, shape: Shape) -> int:
    """Return the index of an axis, counted with the batch, in a shape without it. Raises ShapeError."""
    index = axis - 1 if axis > 0 else axis + len(shape)
    if axis == 0 or not 0 <= index < len(shape):
        raise ShapeError(f"has no axis {axis} in its input {shape}")
    return index


def _list(shapes: list[Shape]) -> str:
    return " and ".join(map(str, shapes))
