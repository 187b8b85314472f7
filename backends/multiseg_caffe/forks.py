"""Layers and fields of Caffe's forks that BVLC Caffe can express, or that do not change what a network computes."""

from __future__ import annotations

from typing import Any

from multiseg.errors import ModelError
from multiseg_caffe.constants import diagonal
from multiseg_caffe.proto import (
    PRECISION_FIELDS,
    TRANSFORMATION_FIELDS,
    NetParameter,
    PoolingParameter,
    UnpoolingParameter,
)
from multiseg_caffe.vectors import vectors

# Layers that read a dataset, which multiseg's batches replace: HED, SegNet, DeepLab, PSPNet and SSD.
DATA_LAYERS = ("ImageLabelmapData", "DenseImageData", "ImageSegData", "AnnotatedData")
# layers that compute metrics, which multiseg computes itself, or write files: DeepLab, PSPNet
METRICS = ("SegAccuracy", "MatWrite")
# A kernel for each channel: Convolution with groups. The second one does not state them.
DEPTHWISE = ("DepthwiseConvolution", "ConvolutionDepthwise")


def replace(net: Any, path: str) -> None:
    """Replace what belongs to a fork by what BVLC Caffe has, in place. Raises ModelError where it contradicts itself.

    - ``pooling_param { ceil_mode: false }`` is ``round_mode: FLOOR``.
    - ReLU6 is a Clip from 0 to 6.
    - DepthwiseConvolution and ConvolutionDepthwise are a Convolution with a group for each output.
    - ``batch_norm_param { scale_bias: true }`` (NVIDIA) is a BatchNorm followed by a Scale, ``NAME_scale``.
    - Axpy is a Scale of two inputs and a sum: ``NAME_factors`` and ``NAME_product``.
    - SoftmaxWithLoss with ``weight_by_label_freqs`` is an InfogainLoss whose matrix has the weights on its diagonal.
    - Unpooling to the maxima (DeconvNet) is an Upsample.
    - Further tops of BN (statistics) and of DeepLab's data layers (sizes) are removed if nothing reads them.
    - ``convolution_param { hole: N }`` (DeepLab) is a dilation.
    - Layers that compute metrics alone, or write files, are removed.
    - Data layers become Data, without the fields of the fork; so do the fields of transform_param.
    - NVIDIA's fields for precision and memory are removed.
    """
    _clear(net)
    layers = []
    _without_unused(net)
    for layer in net.layer:
        if layer.type in METRICS or (layer.type == "Silence" and not layer.bottom):
            continue
        _clear(layer)
        if layer.HasField("convolution_param"):
            _holes(layer, path)
        if layer.type == "Pooling":
            _pooling(layer, path)
        elif layer.type == "ReLU6":
            layer.type = "Clip"
            layer.clip_param.min, layer.clip_param.max = 0, 6
            layer.ClearField("relu_param")
        elif layer.type in DEPTHWISE:
            layer.type = "Convolution"
            if not layer.convolution_param.HasField("group"):
                layer.convolution_param.group = layer.convolution_param.num_output
        elif layer.type in DATA_LAYERS:
            _data(layer)
        elif layer.type == "Unpooling":
            _unpooling(layer, path)
        elif layer.type == "Axpy":
            layers += _axpy(layer, path)
        elif layer.type == "SoftmaxWithLoss":
            layers += _weighted_loss(layer, path)
        layers.append(layer)
        if layer.type == "BatchNorm":
            layers += _scale_of(layer)
    if [id(layer) for layer in layers] != [id(layer) for layer in net.layer]:
        copies = [type(layer).FromString(layer.SerializeToString()) for layer in layers]
        del net.layer[:]
        net.layer.extend(copies)


def _clear(message: Any) -> None:
    """Remove NVIDIA's fields, and those of forks for transformations, from a network or a layer and its parameters."""
    for field in PRECISION_FIELDS.get(message.DESCRIPTOR.name, ()):
        message.ClearField(field)
    for field, value in message.ListFields():
        if field.name.endswith("_param") and field.message_type is not None and hasattr(value, "ListFields"):
            kind = field.message_type.name
            for own in (*PRECISION_FIELDS.get(kind, ()), *TRANSFORMATION_FIELDS.get(kind, ())):
                value.ClearField(own)


def _pooling(layer: Any, path: str) -> None:
    p = layer.pooling_param
    if not p.HasField("ceil_mode"):
        return
    rounding = PoolingParameter.CEIL if p.ceil_mode else PoolingParameter.FLOOR
    if p.HasField("round_mode") and p.round_mode != rounding:
        raise ModelError(
            f"{path}: layer {layer.name!r}: ceil_mode and round_mode contradict each other; keep one of them"
        )
    p.round_mode = rounding
    p.ClearField("ceil_mode")


def _unpooling(layer: Any, path: str) -> None:
    """Make DeconvNet's Unpooling an Upsample, in place."""
    p = layer.unpooling_param
    height, width = p.unpool_h or p.unpool_size, p.unpool_w or p.unpool_size
    if p.unpool != UnpoolingParameter.MAX or len(layer.bottom) != 2 or not height or not width:
        raise ModelError(
            f"{path}: layer {layer.name!r} (Unpooling): only unpooling to the positions of maxima is supported: unpool: MAX, the "
            "mask of a Pooling as second bottom, and unpool_size, or unpool_h and unpool_w"
        )
    layer.type = "Upsample"
    layer.ClearField("unpooling_param")
    layer.upsample_param.upsample_h, layer.upsample_param.upsample_w = height, width


def _without_unused(net: Any) -> None:
    """Remove further tops that nothing but Silence reads, in place: a BN's statistics, and the size of images of a data layer."""
    used = {bottom for layer in net.layer if layer.type not in ("Silence", *METRICS) for bottom in layer.bottom}
    removed = set()
    for layer in net.layer:
        first = 1 if layer.type == "BN" else 2 if layer.type in DATA_LAYERS else len(layer.top)
        if not used.intersection(layer.top[first:]):
            removed.update(layer.top[first:])
            del layer.top[first:]
    for layer in net.layer:
        if layer.type == "Silence":
            layer.bottom[:] = [bottom for bottom in layer.bottom if bottom not in removed]


def _holes(layer: Any, path: str) -> None:
    """Replace DeepLab's holes, which are a dilation, in place."""
    p = layer.convolution_param
    own = [name for name in ("hole", "hole_h", "hole_w") if p.HasField(name)]
    if not own:
        return
    sizes = [p.hole] if own == ["hole"] else [p.hole_h, p.hole_w] if own == ["hole_h", "hole_w"] else []
    if not sizes or p.dilation:
        raise ModelError(f"{path}: layer {layer.name!r}: needs one of hole, hole_h and hole_w, or dilation")
    p.dilation.extend(sizes)
    for name in own:
        p.ClearField(name)


def _data(layer: Any) -> None:
    layer.type = "Data"
    for name in ("dense_image_data_param", "image_data_param"):
        if layer.HasField(name):
            layer.data_param.batch_size = getattr(layer, name).batch_size
            layer.ClearField(name)


def _axpy(layer: Any, path: str) -> list[Any]:
    """Return the layers before the sum that replaces Axpy, factor x + y, in place; factors are (N, C) or (N, C, 1, 1)."""
    if len(layer.bottom) != 3 or len(layer.top) != 1:
        raise ModelError(
            f"{path}: layer {layer.name!r} (Axpy): needs three inputs (factors, x and y) and one output; it has "
            f"{len(layer.bottom)} and {len(layer.top)}"
        )
    factors, x, y = layer.bottom
    before = NetParameter()
    flat = vectors(before, f"{layer.name}_factors", factors)
    product = f"{layer.name}_product"
    before.layer.add(name=product, type="Scale", bottom=[x, flat], top=[product]).scale_param.axis = 0
    layer.type = "Eltwise"
    del layer.bottom[:]
    layer.bottom.extend([product, y])
    return _with_rules(before, layer)


def _weighted_loss(layer: Any, path: str) -> list[Any]:
    """Return the layers of the matrix of a loss with class weights, and make that loss an InfogainLoss, in place.

    As in the forks, the sum of the weighted terms is divided by the number of labels that count, not by the sum of their weights.
    """
    p = layer.loss_param
    weights, weighted = list(p.class_weighting), p.weight_by_label_freqs
    p.ClearField("class_weighting")
    p.ClearField("weight_by_label_freqs")
    if not weighted:  # the forks ignore the weights, too
        return []
    if not weights:
        raise ModelError(
            f"{path}: layer {layer.name!r}: weight_by_label_freqs needs class_weighting: WEIGHT, once for each class"
        )
    before = NetParameter()
    matrix = diagonal(before, weights, f"{layer.name}_weights")
    layer.type = "InfogainLoss"
    layer.infogain_loss_param.axis = layer.softmax_param.axis
    layer.bottom.append(matrix)
    return _with_rules(before, layer)


def _with_rules(before: Any, layer: Any) -> list[Any]:
    """Return the layers of a network that replace a part of ``layer``, in the states that it is in."""
    for part in before.layer:
        part.include.extend(layer.include)
        part.exclude.extend(layer.exclude)
    return list(before.layer)


def _scale_of(layer: Any) -> list[Any]:
    """Return the Scale that a BatchNorm of NVIDIA's fork includes, and remove it from the BatchNorm."""
    p = layer.batch_norm_param
    included = p.scale_bias
    if included:
        scale = type(layer)(
            name=f"{layer.name}_scale", type="Scale", bottom=layer.top, top=layer.top, include=layer.include,
            exclude=layer.exclude, param=layer.param[3:5],
        )  # fmt: skip
        scale.scale_param.bias_term = True
        for own, filler in (("scale_filler", "filler"), ("bias_filler", "bias_filler")):
            if p.HasField(own):
                getattr(scale.scale_param, filler).CopyFrom(getattr(p, own))
        del layer.param[3:]
    for field in ("scale_bias", "scale_filler", "bias_filler"):
        p.ClearField(field)
    return [scale] if included else []
