"""Caffe network files: reading, choosing what belongs to a state, pointing data layers at the core's batches, and losses.

States are DIGITS': TRAIN + "train", TEST + "val", TEST + "deploy".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from caffe.proto import caffe_pb2
from google.protobuf import text_format

from multiseg.errors import ModelError

# what the core feeds: blob name -> which of its arrays
DATA, LABEL = "data", "label"
STATES = {
    "train": (caffe_pb2.TRAIN, "train"),
    "val": (caffe_pb2.TEST, "val"),
    "deploy": (caffe_pb2.TEST, "deploy"),
}


def read(path: str) -> Any:
    """The NetParameter in a file. Raises ModelError with line and column where it does not parse."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    net = caffe_pb2.NetParameter()
    try:
        text_format.Parse(text, net)
    except text_format.ParseError as error:
        raise ModelError(f"{path}:{error}") from error
    if not net.layer:
        raise ModelError(f"{path}: has no `layer {{ ... }}`")
    return net


def filtered(net: Any, state: str) -> Any:
    """The layers that Caffe keeps in this state, without their rules (caffe/src/caffe/net.cpp, FilterNet)."""
    phase, stage = STATES[state]

    def meets(rule: Any) -> bool:
        return (
            (not rule.HasField("phase") or rule.phase == phase)
            and (not rule.HasField("min_level") or rule.min_level <= 0)
            and (not rule.HasField("max_level") or rule.max_level >= 0)
            and all(wanted == stage for wanted in rule.stage)
            and stage not in rule.not_stage
        )

    kept = caffe_pb2.NetParameter(name=net.name)
    for layer in net.layer:
        included = any(map(meets, layer.include)) if layer.include else not any(map(meets, layer.exclude))
        if included:
            copy = kept.layer.add()
            copy.CopyFrom(layer)
            copy.ClearField("include")
            copy.ClearField("exclude")
    return kept


def batch_size(net: Any, state: str) -> int | None:
    """The batch size that the file's data layer names for this state."""
    sizes = [layer.data_param.batch_size for layer in filtered(net, state).layer if layer.type == "Data"]
    return next((size for size in sizes if size), None)


def fed(net: Any, path: str, shapes: dict[str, list[int]]) -> Any:
    """The network with its data layers replaced by inputs of the given shapes, which the core fills.

    Raises ModelError for a data layer that transforms images (mean subtraction aside, which is the core's) or whose tops
    are not called data and label.
    """
    result = caffe_pb2.NetParameter(name=net.name)
    for name, shape in shapes.items():
        layer = result.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
    for layer in net.layer:
        if layer.type not in ("Data", "Input"):
            result.layer.add().CopyFrom(layer)
            continue
        transform = layer.transform_param
        for key in ("scale", "crop_size", "mirror"):
            if transform.HasField(key) and getattr(transform, key) not in (0, 1 if key == "scale" else 0):
                raise ModelError(
                    f"{path}: layer {layer.name!r}: transform_param {{ {key} }} is not supported; "
                    "leave it out (scale with a Power layer, crop when the dataset is made)"
                )
        for top in layer.top:
            if top not in (DATA, LABEL):
                raise ModelError(
                    f"{path}: layer {layer.name!r}: top {top!r} is unknown; a data layer's tops are data and label"
                )
    return result


def outputs(net: Any) -> list[str]:
    """Blobs that no layer consumes, in order."""
    tops = dict.fromkeys(top for layer in net.layer for top in layer.top)
    for layer in net.layer:
        for bottom in layer.bottom:
            if bottom not in layer.top:
                tops.pop(bottom, None)
    return list(tops)


def without_losses(net: Any) -> Any:
    """The network without every layer that depends on the label."""
    tainted = {LABEL}
    result = caffe_pb2.NetParameter(name=net.name)
    for layer in net.layer:
        if layer.type not in ("Data", "Input") and tainted.intersection(layer.bottom):
            tainted.update(layer.top)
        else:
            result.layer.add().CopyFrom(layer)
    return result


def with_native_losses(net: Any) -> Any:
    """The network with NVIDIA's L1Loss (sum of absolute differences / batch size) in BVLC Caffe's own layers."""
    result = caffe_pb2.NetParameter(name=net.name)
    for layer in net.layer:
        if layer.type != "L1Loss":
            result.layer.add().CopyFrom(layer)
            continue
        weight = layer.loss_weight[0] if layer.loss_weight else 1.0
        _difference(result, layer.name, layer.bottom)
        _reduced(result, layer.name, f"{layer.name}_difference", "ASUM", 1.0, weight, layer.top[0])
    return result


def add_loss(net: Any, loss: str, output: str, elements: int) -> None:
    """Append ``l1``, ``l2`` or ``smooth_l1`` of output against label, the mean over all elements, in native layers.

    ``elements`` is their number per image. Smooth L1 of d is r + m^2 / 2 with r = max(|d| - 1, 0) and m = |d| - r.
    """
    _difference(net, "loss", [output, LABEL])
    if loss in ("l1", "l2"):
        _reduced(net, "loss", "loss_difference", "ASUM" if loss == "l1" else "SUMSQ", 1 / elements, 1.0, "loss")
        return
    net.layer.add(name="loss_abs", type="AbsVal", bottom=["loss_difference"], top=["loss_abs"])
    beyond = net.layer.add(name="loss_beyond", type="Power", bottom=["loss_abs"], top=["loss_beyond"])
    beyond.power_param.shift = -1
    net.layer.add(name="loss_linear", type="ReLU", bottom=["loss_beyond"], top=["loss_linear"])
    within = net.layer.add(name="loss_within", type="Eltwise", bottom=["loss_abs", "loss_linear"], top=["loss_within"])
    within.eltwise_param.coeff.extend([1, -1])
    _reduced(net, "loss_linear_part", "loss_linear", "SUM", 1 / elements, 1.0, "loss_linear_part")
    _reduced(net, "loss_square_part", "loss_within", "SUMSQ", 0.5 / elements, 1.0, "loss_square_part")


def _difference(net: Any, name: str, bottoms: Any) -> None:
    layer = net.layer.add(name=f"{name}_difference", type="Eltwise", bottom=bottoms, top=[f"{name}_difference"])
    layer.eltwise_param.operation = caffe_pb2.EltwiseParameter.SUM
    layer.eltwise_param.coeff.extend([1, -1])


def _reduced(net: Any, name: str, bottom: str, operation: str, coeff: float, weight: float, top: str) -> None:
    """Per image, then the mean over the batch: the same for any batch size."""
    each = net.layer.add(name=f"{name}_each", type="Reduction", bottom=[bottom], top=[f"{name}_each"])
    each.reduction_param.operation = caffe_pb2.ReductionParameter.ReductionOp.Value(operation)
    each.reduction_param.axis = 1
    each.reduction_param.coeff = coeff
    mean = net.layer.add(name=name, type="Reduction", bottom=[f"{name}_each"], top=[top], loss_weight=[weight])
    mean.reduction_param.operation = caffe_pb2.ReductionParameter.MEAN
