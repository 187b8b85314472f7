"""Describe Caffe's layers in the vocabulary of multiseg.topology.vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from multiseg.errors import ModelError, setting
from multiseg.topology.names import unused
from multiseg.topology.vocabulary import VOCABULARY
from multiseg_caffe.describing import fork_layers, windows
from multiseg_caffe.describing.axes import Shape, Step, axis, concat_axis
from multiseg_caffe.describing.placing import Placed
from multiseg_caffe.describing.shapes import RULES
from multiseg_caffe.describing.windows import WrongLayer
from multiseg_caffe.proto import FIRST_NUMBER, EltwiseParameter, LRNParameter, PoolingParameter, ReductionParameter
from multiseg_caffe.weights import is_fixed, part

MOVING_AVERAGE_FRACTION = 0.999  # Caffe's default, src/caffe/proto/caffe.proto


def described(placed: list[Placed], path: str, inputs: list[str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Return the layers as in multiseg.model_files, and the name of the value that each blob holds after the last layer.

    One layer of Caffe may become several, the last of which has its name; a Split becomes none.
    Raises ModelError that names a layer without neutral description.
    """
    values = {name: name for name in inputs}
    nodes: list[dict[str, Any]] = []
    taken = set(inputs)
    for item in placed:
        layer = item.layer
        try:
            steps = _steps(item)
        except WrongLayer as error:
            raise ModelError(f"{path}: layer {layer.name!r} ({layer.type}): {error}") from error
        read = [values[bottom] for bottom in layer.bottom]
        channels = _scaled_channels(item)
        if channels:  # the factors are a vector; the vocabulary has an image of one pixel
            factors = _free(f"{layer.name}_reshape", taken)
            shape = {"shape": [channels, 1, 1]}
            nodes.append({"name": factors, "type": "Reshape", "inputs": read[1:], "parameters": shape})
            read = [read[0], factors]
        for number, (kind, parameters) in enumerate(steps, 1):
            last = number == len(steps)
            name = _free(layer.name if last else f"{layer.name}_{kind.lower()}", taken)
            node: dict[str, Any] = {"name": name, "type": kind, "inputs": read, "parameters": parameters}
            if last and len(layer.top) > 1:
                node["outputs"] = [f"{name}:{i}" for i in range(len(layer.top))]
            if kind not in VOCABULARY:
                node["shapes"] = [list(top[1:]) for top in item.tops if top]
                node["weights"] = {part(layer.type, i): list(shape) for i, shape in enumerate(item.weights)}
            if last:
                node.update(_training(item))
            nodes.append(node)
            read = node.get("outputs", [name])
        values.update(zip(layer.top, read if steps else read * len(layer.top), strict=True))
    return nodes, values


def _training(placed: Placed) -> dict[str, Any]:
    """Return ``frozen`` and ``initial`` of a layer (multiseg.topology.layer), without those that have their default."""
    layer = placed.layer
    if layer.type == "BatchNorm":  # its statistics, which no gradient changes
        return {}
    fixed = is_fixed(layer, len(placed.weights))
    filler = layer.convolution_param.weight_filler.type if layer.type in ("Convolution", "Deconvolution") else ""
    return {**({"frozen": True} if fixed else {}), **({"initial": filler} if filler == "bilinear" else {})}


def _free(name: str, taken: set[str]) -> str:
    """Return a name that is not in ``taken``, and add it."""
    unique = unused(name, taken)
    taken.add(unique)
    return unique


def _steps(placed: Placed) -> list[Step]:
    """Return the neutral layers for one layer of Caffe. Raises WrongLayer if it cannot be described."""
    if None in placed.tops or None in placed.bottoms:
        raise WrongLayer(
            "only Caffe itself can compute the output shape of this type; it cannot be described; cut the network before it, "
            f"with {setting('outputs', example='NAME')}"
        )
    bottoms = [shape for shape in placed.bottoms if shape is not None]
    if any(not top or top[0] != bottom[0] for top in placed.tops if top is not None for bottom in bottoms):
        raise WrongLayer("works across the images of a batch; a description is of one image")
    rule = _STEPS.get(placed.layer.type)
    steps = rule(placed.layer, bottoms) if rule is not None else None
    return [_opaque(placed.layer)] if steps is None else steps


def _opaque(layer: Any) -> Step:
    """Return a layer that the vocabulary lacks: its type and its parameters, those that the file leaves out by their defaults."""
    parameters: dict[str, Any] = {}
    own = f"{layer.type.lower()}param"
    for field in layer.DESCRIPTOR.fields:
        given = field.message_type is not None and not hasattr(getattr(layer, field.name), "append")
        if not given or field.name in ("transform_param", "loss_param") or not field.name.endswith("_param"):
            continue
        if not layer.HasField(field.name) and field.name.replace("_", "") != own:
            continue
        message = getattr(layer, field.name)
        for key in field.message_type.fields:
            setting = getattr(message, key.name)
            replaced = key.number > FIRST_NUMBER and field.number < FIRST_NUMBER  # by forks.py
            if key.name == "engine" or key.name.endswith("filler") or replaced:
                continue
            if hasattr(setting, "append"):
                parameters.update({key.name: list(map(_plain_value, setting))} if setting else {})
            elif key.message_type is None or message.HasField(key.name):
                parameters[key.name] = _plain_value(setting)
    return (f"Caffe{layer.type}" if layer.type in VOCABULARY else layer.type, parameters)


def _plain_value(value: Any) -> Any:
    """Return a number or a text as it is, a message as text."""
    return " ".join(str(value).split()) if hasattr(value, "DESCRIPTOR") else value


def _plain(kind: str) -> Callable[[Any, list[Shape]], list[Step]]:
    return lambda layer, bottoms: [(kind, {})]


def _convolution(layer: Any, bottoms: list[Shape]) -> list[Step]:
    if len(bottoms) > 1:
        raise WrongLayer(f"applies one set of weights to {len(bottoms)} inputs; a described convolution has one input")
    p = layer.convolution_param
    window = windows.of_convolution(p)
    parameters = {
        "num_output": p.num_output,
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "pads": list(window.pad * 2),
        "dilations": list(window.dilation),
        "group": p.group,
        "bias_term": p.bias_term,
    }
    return [("Conv" if layer.type == "Convolution" else "ConvTranspose", parameters)]


def _pooling(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p = layer.pooling_param
    if p.pool == PoolingParameter.STOCHASTIC:
        return [("StochasticPool", _opaque(layer)[1])]
    kind = "Max" if p.pool == PoolingParameter.MAX else "Average"
    if len(layer.top) > 1 and kind == "Average":
        raise WrongLayer("has a second top; only MAX pooling gives the indices of its maxima")
    if p.global_pooling and len(layer.top) == 1:
        return [(f"Global{kind}Pool", {})]
    window = windows.of_pooling(p, (bottoms[0][2], bottoms[0][3]))
    parameters = {
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "pads": list(window.pad * 2),
        "ceil_mode": p.round_mode == PoolingParameter.CEIL,
    }
    if len(layer.top) > 1:
        parameters["indices"] = True
    if kind == "Average":  # Caffe divides by the size of the window within the padded image
        parameters["count_include_pad"] = True
    return [(f"{kind}Pool", parameters)]


def _inner_product(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p = layer.inner_product_param
    if axis(p.axis, bottoms[0]) != 1:
        return [_opaque(layer)]
    gemm = ("Gemm", {"num_output": p.num_output, "bias_term": p.bias_term})
    return [gemm] if len(bottoms[0]) == 2 else [("Flatten", {}), gemm]


def _batch_norm(layer: Any, bottoms: list[Shape]) -> list[Step]:
    """Describe BatchNorm in prediction; :func:`add_training_statistics` adds its use of statistics in training."""
    p = layer.batch_norm_param
    parameters = {"epsilon": p.eps, "affine": False}
    if p.HasField("use_global_stats") and not p.use_global_stats:
        parameters["prediction_statistics"] = "batch"
    if p.HasField("moving_average_fraction") and round(p.moving_average_fraction, 6) != MOVING_AVERAGE_FRACTION:
        parameters["momentum"] = round(1 - p.moving_average_fraction, 6)
    return [("BatchNormalization", parameters)]


def add_training_statistics(nodes: list[dict[str, Any]], placed: list[Placed], training: Any) -> None:
    """Mark the layers in ``nodes`` that use stored statistics in training too; ``training`` is the network of that state.

    The layer of the training state is that of the same name, or the one that computes the same blob.
    """
    norms = [layer for layer in training.layer if layer.type in ("BatchNorm", "BN")]
    by_name = {layer.name: layer for layer in norms}
    by_top = {layer.top[0]: layer for layer in norms if layer.top}
    tops = {item.layer.name: item.layer.top[0] for item in placed if item.layer.top}
    for node in nodes:
        if node["type"] == "BatchNormalization":
            layer = by_name.get(node["name"]) or by_top.get(tops.get(node["name"], ""))
            if layer is not None and (layer.batch_norm_param.use_global_stats or layer.bn_param.frozen):
                node["parameters"]["training_statistics"] = "stored"


def _scale(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p = layer.scale_param
    if not p.bias_term and (_is_per_channel(bottoms) or bottoms[1:] == bottoms[:1]):
        return [("Mul", {})]
    if len(bottoms) == 2 or axis(p.axis, bottoms[0]) != 1 or p.num_axes != 1:
        return [_opaque(layer)]
    return [("Scale", {"bias_term": p.bias_term})]


def _scaled_channels(placed: Placed) -> int:
    """Return the number of channels of a Scale whose second input has one factor for each, (N, C), and no bias; else 0."""
    layer, bottoms = placed.layer, [shape for shape in placed.bottoms if shape is not None]
    scales = layer.type == "Scale" and not layer.scale_param.bias_term
    return bottoms[1][1] if scales and _is_per_channel(bottoms) else 0


def _is_per_channel(bottoms: list[Shape]) -> bool:
    """Return whether the inputs are an image and one factor for each of its channels, (N, C)."""
    return len(bottoms) == 2 and len(bottoms[0]) == 4 and bottoms[1] == bottoms[0][:2]


def _lrn(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p = layer.lrn_param
    within = p.norm_region == LRNParameter.WITHIN_CHANNEL
    # within a channel, Caffe adds 1 and ignores k (src/caffe/layers/lrn_layer.cpp)
    parameters = {"size": p.local_size, "alpha": p.alpha, "beta": p.beta, "bias": 1.0 if within else p.k}
    return [("LRN", {**parameters, "within_channel": True} if within else parameters)]


def _relu(layer: Any, bottoms: list[Shape]) -> list[Step]:
    slope = layer.relu_param.negative_slope
    return [("LeakyRelu", {"alpha": slope}) if slope else ("Relu", {})]


def _prelu(layer: Any, bottoms: list[Shape]) -> list[Step]:
    return [("PRelu", {"num_parameters": 1 if layer.prelu_param.channel_shared else bottoms[0][1]})]


def _linear(scale: float, shift: float) -> list[Step]:
    scaled: list[Step] = [("Mul", {"value": scale})] if scale != 1 else []
    return scaled + ([("Add", {"value": shift})] if shift else [])


def _power(layer: Any, bottoms: list[Shape]) -> list[Step]:
    """Describe (shift + scale x) ^ power."""
    p = layer.power_param
    steps = _linear(p.scale, p.shift) + ([("Pow", {"exponent": p.power})] if p.power != 1 else [])
    return steps or [("Identity", {})]


def _exp(layer: Any, bottoms: list[Shape]) -> list[Step]:
    """Describe base ^ (shift + scale x)."""
    p = layer.exp_param
    unit = 1.0 if p.base == -1 else math.log(p.base)
    return [*_linear(p.scale * unit, p.shift * unit), ("Exp", {})]


def _log(layer: Any, bottoms: list[Shape]) -> list[Step]:
    """Describe log(shift + scale x) to the layer's base."""
    p = layer.log_param
    return [*_linear(p.scale, p.shift), ("Log", {}), *_linear(1.0 if p.base == -1 else 1 / math.log(p.base), 0)]


def _softmax(layer: Any, bottoms: list[Shape]) -> list[Step]:
    return [("Softmax", {"axis": _inner_axis(layer.softmax_param.axis, bottoms[0])})]


def _concat(layer: Any, bottoms: list[Shape]) -> list[Step]:
    return [("Concat", {"axis": _inner_axis(concat_axis(layer, bottoms[0]), bottoms[0])})]


def _slice(layer: Any, bottoms: list[Shape]) -> list[Step]:
    along = _inner_axis(concat_axis(layer, bottoms[0]), bottoms[0])
    size, parts = bottoms[0][along], len(layer.top)
    points = list(layer.slice_param.slice_point) or [size // parts * i for i in range(1, parts)]
    cuts = [0, *points, size]
    return [("Split", {"axis": along, "split": [b - a for a, b in pairwise(cuts)]})]


def _eltwise(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p = layer.eltwise_param
    if p.operation == EltwiseParameter.PROD:
        return [("Mul", {})]
    if p.operation == EltwiseParameter.MAX:
        return [("Max", {})]
    coefficients = list(p.coeff)
    if coefficients == [1, -1]:
        return [("Sub", {})]
    return [("Sum", {} if all(coefficient == 1 for coefficient in coefficients) else {"coefficients": coefficients})]


def _crop(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p = layer.crop_param
    return [("Crop", {"axis": _inner_axis(p.axis, bottoms[0]), "offset": list(p.offset) or [0]})]


def _flatten(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p, shape = layer.flatten_param, bottoms[0]
    first, last = _inner_axis(p.axis, shape), axis(p.end_axis, shape)
    if (first, last) == (1, len(shape) - 1):
        return [("Flatten", {})]
    joined = math.prod(shape[first : last + 1])
    return [("Reshape", {"shape": [*shape[1:first], joined, *shape[last + 1 :]]})]


def _reshape(layer: Any, bottoms: list[Shape]) -> list[Step]:
    tops, _ = RULES["Reshape"](layer, bottoms)
    return [("Reshape", {"shape": list(tops[0][1:])})]


def _reduction(layer: Any, bottoms: list[Shape]) -> list[Step]:
    p = layer.reduction_param
    axes = list(range(_inner_axis(p.axis, bottoms[0]), len(bottoms[0])))
    elementwise: dict[int, list[Step]] = {  # applied before the sum
        ReductionParameter.ASUM: [("Abs", {})],
        ReductionParameter.SUMSQ: [("Pow", {"exponent": 2.0})],
    }
    kind = "ReduceMean" if p.operation == ReductionParameter.MEAN else "ReduceSum"
    return [*elementwise.get(p.operation, []), (kind, {"axes": axes, "keepdims": False}), *_linear(p.coeff, 0)]


def _inner_axis(index: int, shape: Shape) -> int:
    """Return an axis counted from 0. Raises WrongLayer for axis 0, the batch."""
    position = axis(index, shape)
    if position == 0:
        raise WrongLayer("works across the images of a batch; a description is of one image")
    return position


_STEPS: dict[str, Callable[[Any, list[Shape]], list[Step] | None]] = {
    "AbsVal": _plain("Abs"),
    "BNLL": _plain("Softplus"),
    "Sigmoid": _plain("Sigmoid"),
    "TanH": _plain("Tanh"),
    "ELU": lambda layer, bottoms: [("Elu", {"alpha": layer.elu_param.alpha})],
    "Swish": lambda layer, bottoms: [("Swish", {"alpha": layer.swish_param.beta})],
    "Clip": lambda layer, bottoms: [("Clip", {"min": layer.clip_param.min, "max": layer.clip_param.max})],
    "Dropout": lambda layer, bottoms: [("Dropout", {"ratio": layer.dropout_param.dropout_ratio})],
    "Split": lambda layer, bottoms: [],
    "Silence": lambda layer, bottoms: [],
    **dict.fromkeys(("Convolution", "Deconvolution"), _convolution),
    "Pooling": _pooling,
    "InnerProduct": _inner_product,
    "BatchNorm": _batch_norm,
    **fork_layers.STEPS,
    "Scale": _scale,
    "LRN": _lrn,
    "ReLU": _relu,
    "PReLU": _prelu,
    "Power": _power,
    "Exp": _exp,
    "Log": _log,
    "Softmax": _softmax,
    "Concat": _concat,
    "Slice": _slice,
    "Eltwise": _eltwise,
    "Crop": _crop,
    "Flatten": _flatten,
    "Reduction": _reduction,
    "Reshape": _reshape,
}
