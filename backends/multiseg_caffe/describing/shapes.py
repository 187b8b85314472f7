"""Infer shapes of tops and weights for each of Caffe's types of layers (src/caffe/layers/).

A rule takes a LayerParameter and its bottoms' shapes, which include the batch: (N, C, H, W). It raises WrongLayer for layers
for which Caffe would terminate the process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from multiseg_caffe.describing import fork_layers
from multiseg_caffe.describing.axes import Inferred, Shape, axis, concat_axis, image, listed
from multiseg_caffe.describing.loss_shapes import (
    contrastive_shapes,
    of_classes_shapes,
    pairwise_shapes,
    per_label_shapes,
)
from multiseg_caffe.describing.window_shapes import convolution_shapes, pooling_shapes, spatial_pyramid_shapes
from multiseg_caffe.describing.windows import WrongLayer
from multiseg_caffe.proto import EltwiseParameter

READERS = ("Data", "ImageData", "HDF5Data", "MemoryData", "WindowData")  # layers that read datasets
# layers whose output shapes depend on data, recurrent nets or Python code, so that only Caffe can compute them
UNRULED = (*READERS, "Python", "LSTM", "RNN", "LSTMUnit", "Filter", "BatchReindex", "Im2col", "HDF5Output")


def _same(layer: Any, bottoms: list[Shape]) -> Inferred:
    return [bottoms[0]], []


def _mvn(layer: Any, bottoms: list[Shape]) -> Inferred:
    if len(bottoms[0]) > 4:
        raise WrongLayer(f"needs at most four axes, (N, C, H, W), but its input is {bottoms[0]}")
    return [(*bottoms[0], *(1,) * (4 - len(bottoms[0])))], []  # the output always has four axes


def _input(layer: Any, bottoms: list[Shape]) -> Inferred:
    shapes = [tuple(shape.dim) for shape in layer.input_param.shape]
    if len(shapes) not in (1, len(layer.top)):
        raise WrongLayer(f"has {len(shapes)} shapes for {len(layer.top)} tops")
    return shapes * (len(layer.top) if len(shapes) == 1 else 1), []


def _dummy(layer: Any, bottoms: list[Shape]) -> Inferred:
    p = layer.dummy_data_param
    shapes = [tuple(shape.dim) for shape in p.shape]
    shapes = shapes or list(zip(p.num, p.channels, p.height, p.width))  # noqa: B905
    if len(shapes) not in (1, len(layer.top)):
        raise WrongLayer(f"has {len(shapes)} shapes for {len(layer.top)} tops")
    return shapes * (len(layer.top) if len(shapes) == 1 else 1), []


def _parameter(layer: Any, bottoms: list[Shape]) -> Inferred:
    shape = tuple(layer.parameter_param.shape.dim)
    return [shape], [shape]


def _inner_product(layer: Any, bottoms: list[Shape]) -> Inferred:
    p = layer.inner_product_param
    if not p.num_output:
        raise WrongLayer("has no num_output")
    first = axis(p.axis, bottoms[0])
    inputs = math.prod(bottoms[0][first:])
    weight = (inputs, p.num_output) if p.transpose else (p.num_output, inputs)
    return [(*bottoms[0][:first], p.num_output)], [weight, *([(p.num_output,)] if p.bias_term else [])]


def _embed(layer: Any, bottoms: list[Shape]) -> Inferred:
    p = layer.embed_param
    if not p.num_output or not p.input_dim:
        raise WrongLayer("needs num_output and input_dim")
    return [(*bottoms[0], p.num_output)], [(p.input_dim, p.num_output), *([(p.num_output,)] if p.bias_term else [])]


def _batch_norm(layer: Any, bottoms: list[Shape]) -> Inferred:
    if any(spec.lr_mult for spec in layer.param):
        raise WrongLayer("has param { lr_mult } other than 0; its statistics are not learned by gradient")
    channels = bottoms[0][1] if len(bottoms[0]) > 1 else 1
    return [bottoms[0]], [(channels,), (channels,), (1,)]


def _scale(layer: Any, bottoms: list[Shape]) -> Inferred:
    """Infer shapes of Scale and Bias: factors (summands) along some axes, learned or a second input."""
    p = layer.scale_param if layer.type == "Scale" else layer.bias_param
    first = axis(p.axis, bottoms[0])
    if len(bottoms) == 2:
        if layer.type == "Scale" and bottoms[1] == bottoms[0]:
            first = 0
        covered, weights = bottoms[1], []
        if bottoms[0][first : first + len(covered)] != covered:
            raise WrongLayer(
                f"applies {covered} to {bottoms[0]} from axis {first} on, but the sizes of these axes differ"
            )
    else:
        end = len(bottoms[0]) if p.num_axes == -1 else first + p.num_axes
        if p.num_axes < -1 or end > len(bottoms[0]):
            raise WrongLayer(f"covers {p.num_axes} axes from axis {first} on of its input {bottoms[0]}")
        covered = bottoms[0][first:end]
        weights = [covered]
    return [bottoms[0]], weights + ([covered] if layer.type == "Scale" and p.bias_term else [])


def _prelu(layer: Any, bottoms: list[Shape]) -> Inferred:
    if not 2 <= len(bottoms[0]) <= 4:
        raise WrongLayer(f"needs (N, C), (N, C, H) or (N, C, H, W), but its input is {bottoms[0]}")
    return [bottoms[0]], [() if layer.prelu_param.channel_shared else (bottoms[0][1],)]


def _lrn(layer: Any, bottoms: list[Shape]) -> Inferred:
    image(bottoms[0])
    if layer.lrn_param.local_size % 2 == 0:
        raise WrongLayer(f"has local_size {layer.lrn_param.local_size}, which must be odd")
    return [bottoms[0]], []


def _exponent(layer: Any, bottoms: list[Shape]) -> Inferred:
    base = (layer.exp_param if layer.type == "Exp" else layer.log_param).base
    if base != -1 and base <= 0:
        raise WrongLayer(f"has base {base:g}, which must be greater than 0, or -1 for e")
    return [bottoms[0]], []


def _clip(layer: Any, bottoms: list[Shape]) -> Inferred:
    if not layer.clip_param.IsInitialized():
        raise WrongLayer("needs clip_param { min: ... max: ... }")
    return [bottoms[0]], []


def _dropout(layer: Any, bottoms: list[Shape]) -> Inferred:
    if not 0 <= layer.dropout_param.dropout_ratio < 1:
        raise WrongLayer(
            f"has dropout_ratio {layer.dropout_param.dropout_ratio:g}, which must be at least 0 and less than 1"
        )
    return [bottoms[0]], []


def _softmax(layer: Any, bottoms: list[Shape]) -> Inferred:
    axis(layer.softmax_param.axis, bottoms[0])
    return [bottoms[0]], []


def _concat(layer: Any, bottoms: list[Shape]) -> Inferred:
    along = concat_axis(layer, bottoms[0])
    for other in bottoms[1:]:
        if len(other) != len(bottoms[0]) or any(
            a != b
            for i, (a, b) in enumerate(zip(other, bottoms[0]))  # noqa: B905
            if i != along
        ):
            raise WrongLayer(f"concatenates along axis {along}, but its inputs {listed(bottoms)} differ in other axes")
    total = sum(bottom[along] for bottom in bottoms)
    return [(*bottoms[0][:along], total, *bottoms[0][along + 1 :])], []


def _slice(layer: Any, bottoms: list[Shape]) -> Inferred:
    along = concat_axis(layer, bottoms[0])
    size, points, count = bottoms[0][along], list(layer.slice_param.slice_point), len(layer.top)
    if not points and size % count:
        raise WrongLayer(f"cannot slice {size} into {count} equal parts; specify slice_point")
    if points and len(points) != count - 1:
        raise WrongLayer(f"specifies slice_point {len(points)} times for {count} tops; it needs {count - 1}")
    cuts = [0, *points, size] if points else [size // count * i for i in range(count + 1)]
    sizes = [cuts[i + 1] - cuts[i] for i in range(count)]
    if min(sizes) < 1:
        raise WrongLayer(f"cannot slice its input {bottoms[0]} along axis {along} at {', '.join(map(str, points))}")
    return [(*bottoms[0][:along], part, *bottoms[0][along + 1 :]) for part in sizes], []


def _split(layer: Any, bottoms: list[Shape]) -> Inferred:
    return [bottoms[0]] * len(layer.top), []


def _silence(layer: Any, bottoms: list[Shape]) -> Inferred:
    return [], []


def _eltwise(layer: Any, bottoms: list[Shape]) -> Inferred:
    if any(other != bottoms[0] for other in bottoms):
        raise WrongLayer(f"needs inputs of one shape, but they are {listed(bottoms)}")
    if layer.eltwise_param.coeff and layer.eltwise_param.operation == EltwiseParameter.PROD:
        raise WrongLayer("has coeff, which is valid for operation SUM only")
    if layer.eltwise_param.coeff and len(layer.eltwise_param.coeff) != len(bottoms):
        raise WrongLayer(f"specifies coeff {len(layer.eltwise_param.coeff)} times for {len(bottoms)} inputs")
    return [bottoms[0]], []


def _crop(layer: Any, bottoms: list[Shape]) -> Inferred:
    p = layer.crop_param
    if len(bottoms[0]) != len(bottoms[1]):
        raise WrongLayer(f"needs two inputs with the same number of axes, but they are {listed(bottoms)}")
    first = axis(p.axis, bottoms[0])
    axes = len(bottoms[0]) - first
    if len(p.offset) not in (0, 1, axes):
        raise WrongLayer(f"specifies offset {len(p.offset)} times for {axes} axes")
    offsets = list(p.offset) * (axes if len(p.offset) == 1 else 1) or [0] * axes
    for i, offset in enumerate(offsets, first):
        if offset + bottoms[1][i] > bottoms[0][i]:
            raise WrongLayer(f"cannot crop {bottoms[1]} from {bottoms[0]} at offset {offset}")
    return [(*bottoms[0][:first], *bottoms[1][first:])], []


def _flatten(layer: Any, bottoms: list[Shape]) -> Inferred:
    p, shape = layer.flatten_param, bottoms[0]
    first, last = axis(p.axis, shape), axis(p.end_axis, shape)
    return [(*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])], []


def _reshape(layer: Any, bottoms: list[Shape]) -> Inferred:
    p, bottom = layer.reshape_param, bottoms[0]
    first = p.axis if p.axis >= 0 else len(bottom) + p.axis + 1
    end = len(bottom) if p.num_axes == -1 else first + p.num_axes
    dims = list(p.shape.dim)
    wrong = WrongLayer(f"cannot reshape {bottom} to {tuple(dims)}")
    if not 0 <= first <= end <= len(bottom) or dims.count(-1) > 1 or any(dim < -1 for dim in dims):
        raise wrong
    for i, dim in enumerate(dims):
        if dim == 0:
            if first + i >= len(bottom):
                raise wrong
            dims[i] = bottom[first + i]
    shape = [*bottom[:first], *dims, *bottom[end:]]
    specified = math.prod(size for size in shape if size != -1)
    if -1 in shape and specified and math.prod(bottom) % specified == 0:
        shape[shape.index(-1)] = math.prod(bottom) // specified
    if math.prod(shape) != math.prod(bottom):
        raise wrong
    return [tuple(shape)], []


def _reduction(layer: Any, bottoms: list[Shape]) -> Inferred:
    return [bottoms[0][: axis(layer.reduction_param.axis, bottoms[0])]], []


def _argmax(layer: Any, bottoms: list[Shape]) -> Inferred:
    p, shape = layer.argmax_param, bottoms[0]
    if p.HasField("axis"):
        along = axis(p.axis, shape)
        return [(*shape[:along], p.top_k, *shape[along + 1 :])], []
    return [(shape[0], 2 if p.out_max_val else 1, p.top_k, *(1,) * max(len(shape) - 3, 0))], []


def _tile(layer: Any, bottoms: list[Shape]) -> Inferred:
    along = axis(layer.tile_param.axis, bottoms[0])
    if not layer.tile_param.tiles:
        raise WrongLayer("has tiles 0, which must be at least 1")
    return [(*bottoms[0][:along], bottoms[0][along] * layer.tile_param.tiles, *bottoms[0][along + 1 :])], []


ELEMENTWISE = ("AbsVal", "BNLL", "ELU", "Exp", "Log", "Power", "ReLU", "Sigmoid", "Swish", "TanH", "Threshold")
# types that may overwrite their input. AbsVal rejects this; Eltwise and LRN would read elements that they have overwritten
IN_PLACE = {
    *ELEMENTWISE,
    "PReLU",
    "Dropout",
    "Clip",
    "BatchNorm",
    "BN",
    "Scale",
    "Bias",
    "Softmax",
    "MVN",
    "SpatialDropout",
} - {"AbsVal"}
MANY = 1 << 30
COUNTS = {  # minimum and maximum number of bottoms, then of tops; all other types have one of each
    **dict.fromkeys(("Input", "DummyData"), (0, 0, 1, MANY)),
    "Parameter": (0, 0, 1, 1),
    **dict.fromkeys(("Convolution", "Deconvolution"), (1, MANY, 1, MANY)),
    "Pooling": (1, 1, 1, 2),
    **dict.fromkeys(("Scale", "Bias"), (1, 2, 1, 1)),
    "Concat": (1, MANY, 1, 1),
    **dict.fromkeys(("Slice", "Split"), (1, 1, 1, MANY)),
    "Silence": (1, MANY, 0, 0),
    "Eltwise": (2, MANY, 1, 1),
    "Crop": (2, 2, 1, 1),
    "BN": (1, 1, 1, 3),
    "Upsample": (2, 2, 1, 1),
    "Accuracy": (2, 2, 1, 2),
    # Caffe adds a top to a loss without one
    **dict.fromkeys(
        ("EuclideanLoss", "SigmoidCrossEntropyLoss", "L1Loss", "HingeLoss", "MultinomialLogisticLoss"), (2, 2, 0, 1)
    ),
    "SoftmaxWithLoss": (2, 2, 0, 2),
    "SmoothL1Loss": (2, 4, 0, 1),
    "InfogainLoss": (2, 3, 0, 2),
    "ContrastiveLoss": (3, 3, 0, 1),
}
RULES: dict[str, Callable[[Any, list[Shape]], Inferred]] = {
    **dict.fromkeys(ELEMENTWISE, _same),
    "MVN": _mvn,
    **dict.fromkeys(("Exp", "Log"), _exponent),
    "Input": _input,
    "DummyData": _dummy,
    "Parameter": _parameter,
    **dict.fromkeys(("Convolution", "Deconvolution"), convolution_shapes),
    "Pooling": pooling_shapes,
    "SPP": spatial_pyramid_shapes,
    "InnerProduct": _inner_product,
    "Embed": _embed,
    "BatchNorm": _batch_norm,
    **fork_layers.RULES,
    **dict.fromkeys(("Scale", "Bias"), _scale),
    "PReLU": _prelu,
    "LRN": _lrn,
    "Clip": _clip,
    "Dropout": _dropout,
    "Softmax": _softmax,
    "Concat": _concat,
    "Slice": _slice,
    "Split": _split,
    "Silence": _silence,
    "Eltwise": _eltwise,
    "Crop": _crop,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Reduction": _reduction,
    "ArgMax": _argmax,
    "Tile": _tile,
    **dict.fromkeys(("SoftmaxWithLoss", "InfogainLoss", "Accuracy"), per_label_shapes),
    **dict.fromkeys(("HingeLoss", "MultinomialLogisticLoss"), of_classes_shapes),
    **dict.fromkeys(("EuclideanLoss", "SigmoidCrossEntropyLoss", "L1Loss", "SmoothL1Loss"), pairwise_shapes),
    "ContrastiveLoss": contrastive_shapes,
}
