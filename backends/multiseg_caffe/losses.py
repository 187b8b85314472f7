"""Losses: find them in Caffe's files, and express those of other forks and of multiseg in layers of BVLC Caffe."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from multiseg.network import CLASSES, IMAGES, LossTerms
from multiseg_caffe import class_losses, prototxt, references
from multiseg_caffe.proto import EltwiseParameter, ReductionParameter
from multiseg_caffe.sources import LABEL
from multiseg_caffe.vectors import vectors

BY_CLASS = ("SoftmaxWithLoss", "InfogainLoss", "HingeLoss", "MultinomialLogisticLoss")
NORMALISED = ("SoftmaxWithLoss", "SigmoidCrossEntropyLoss", "InfogainLoss")  # by their loss_param
BY_DIFFERENCE = ("EuclideanLoss", "L1Loss", "SmoothL1Loss")
WORDS = {
    "SoftmaxWithLoss": "softmax cross-entropy, mean over places",
    "EuclideanLoss": "squared difference / 2, summed over elements, mean over images",
    "SigmoidCrossEntropyLoss": "sigmoid cross-entropy, summed over elements, mean over images",
    "L1Loss": "absolute difference, summed over elements, mean over images",
    "SmoothL1Loss": "smooth absolute difference, summed over elements, mean over images",
    "InfogainLoss": "softmax cross-entropy by a matrix",
    "HingeLoss": "hinge, mean over images",
    "MultinomialLogisticLoss": "logarithm of the right class's probability, mean over images",
}


def weight(layer: Any) -> float:
    """Return the weight of a layer's first output in the objective."""
    if layer.loss_weight:
        return float(layer.loss_weight[0])
    return 1.0 if layer.type.endswith("Loss") else 0.0


def words(net: Any) -> str | None:
    """Return the losses of a network in words; None if it has none."""
    terms = []
    for layer in net.layer:
        if weight(layer):
            factor = "" if weight(layer) == 1 else f"{weight(layer):g} x "
            terms.append(f"{factor}{WORDS.get(layer.type, layer.type)} ({', '.join(layer.bottom)})")
    return " + ".join(terms) or None


def described(net: Any, values: Mapping[str, str], label_scale: float, path: str) -> dict[str, Any]:
    """Return the items of a network's description about its losses; see multiseg.topology.interfaces.

    ``values`` are the values of the description by blob; ``label_scale`` is the factor of the file's labels.
    """
    types = [layer.type for layer in net.layer if weight(layer)]
    by_class = any(kind in BY_CLASS for kind in types)
    by_difference = any(kind in BY_DIFFERENCE for kind in types)
    plain = [layer for layer in net.layer if layer.type == "SoftmaxWithLoss" and _is_plain_mean(layer)]
    return {
        "loss": words(net),
        "loss_labels": CLASSES if by_class else IMAGES if by_difference else None,
        "cross_entropy": types == ["SoftmaxWithLoss"] and bool(plain) and label_scale == 1,
        "objective": _objective(net, values, label_scale, path),
    }


def _objective(net: Any, values: Mapping[str, str], label_scale: float, path: str) -> dict[str, Any] | None:
    """Return the cross entropy of a network as multiseg.topology.objective; None for any other loss, or several."""
    terms = [layer for layer in net.layer if weight(layer)]
    kinds = {"SoftmaxWithLoss": "softmax", "InfogainLoss": "softmax", "SigmoidCrossEntropyLoss": "sigmoid"}
    if len(terms) != 1 or terms[0].type not in kinds or terms[0].softmax_param.axis != 1:
        return None
    (layer,) = terms
    loss = layer.loss_param
    matrix = references.matrix(net, layer, path) if layer.type == "InfogainLoss" else None
    if layer.type == "InfogainLoss" and (matrix is None or layer.infogain_loss_param.axis != 1):
        return None
    return {
        "kind": kinds[layer.type],
        "scores": values.get(layer.bottom[0]),
        "normalization": normalization(layer),
        "ignore": [loss.ignore_label] if loss.HasField("ignore_label") else [],
        "weight": weight(layer),
        "label_scale": label_scale,
        "matrix": matrix,
    }


def normalization(layer: Any) -> str:
    """Return the divisor of a loss: valid, full, batch_size or none.

    Source: softmax_loss_layer.cpp, infogain_loss_layer.cpp and sigmoid_cross_entropy_loss_layer.cpp, LayerSetUp; the default of
    the last is batch_size.
    """
    loss = layer.loss_param
    if loss.HasField("normalization"):
        return str(loss.NormalizationMode.Name(loss.normalization)).lower()
    if loss.HasField("normalize"):
        return "valid" if loss.normalize else "batch_size"
    return "batch_size" if layer.type == "SigmoidCrossEntropyLoss" else "valid"


def _is_plain_mean(layer: Any) -> bool:
    """Return whether a SoftmaxWithLoss is the mean over all positions whose label is not ignored."""
    ignores = layer.loss_param.HasField("ignore_label")
    return weight(layer) == 1 and normalization(layer) in (("valid",) if ignores else ("valid", "full"))


def terms(definition: Any, net: Any, images: int, batch_size: int) -> LossTerms:
    """Return the terms of the loss after a forward pass of ``net``, see :meth:`multiseg.network.Network.evaluate`.

    ``definition`` (NetParameter) has the layers of ``net``; the net was run on ``images`` images.
    """
    layers = {top: layer for layer in definition.layer for top in layer.top}
    result = []
    for blob, factor in net.blob_loss_weights.items():
        if factor:
            value = float(factor * net.blobs[blob].data.sum())
            count = _count(layers.get(blob), net.blobs, images)
            result.append((value, images / batch_size) if count is None else (value * count, float(count)))
    return result


def _count(layer: Any, blobs: Any, images: int) -> int | None:
    """Return the number of elements that the value of a loss layer is the mean of; None if it is a sum."""
    if layer is None:
        return images
    if layer.type in NORMALISED:
        loss, divisor = layer.loss_param, normalization(layer)
        labels = blobs[layer.bottom[1]].data
        if divisor == "valid" and loss.HasField("ignore_label"):
            return int((np.trunc(labels) != loss.ignore_label).sum())
        return {"valid": int(labels.size), "full": int(labels.size), "batch_size": images}.get(divisor)
    if layer.type == "Python" and layer.python_param.module == class_losses.PYTHON:
        return class_losses.counted(layer, blobs[layer.bottom[1]].data)
    if layer.type.endswith("Loss") or layer.type == "Python":
        return images
    if (
        layer.type == "Reduction"
        and layer.reduction_param.axis == 0
        and layer.reduction_param.operation == ReductionParameter.MEAN
    ):
        return int(blobs[layer.bottom[0]].data.size)
    return None


def of_probabilities(net: Any, output: str, label_scale: float) -> dict[str, Any]:
    """Return the items of a network's description about losses whose labels are probabilities; see multiseg.network."""
    compared = [layer for layer in net.layer if layer.type == "SigmoidCrossEntropyLoss" and weight(layer)]
    if not compared:
        return {}
    known = not any(layer.loss_param.HasField("ignore_label") for layer in compared)
    labels = {"label_range": [0, round(1 / label_scale)]} if known else {}
    return {"logits": output in [layer.bottom[0] for layer in compared], **labels}


def ignored(net: Any) -> list[int]:
    """Return the class indices that the losses of a network ignore."""
    return sorted(
        {
            layer.loss_param.ignore_label
            for layer in net.layer
            if layer.loss_param.HasField("ignore_label") and weight(layer)
        }
    )


def without(net: Any, labels: Collection[str] = (LABEL,)) -> tuple[Any, list[Any]]:
    """Return the network without losses, metrics and all layers that depend on labels, and the layers removed."""
    tainted, kept, removed = set(labels), [], []
    for layer in net.layer:
        if tainted.intersection(layer.bottom) or layer.type.endswith("Loss") or layer.type == "Accuracy":
            tainted.update(set(layer.top) - set(layer.bottom))
            removed.append(layer)
        else:
            kept.append(layer)
    return prototxt.of_layers(net.name, kept), removed


def heads(removed: list[Any], outputs: Collection[str]) -> list[str]:
    """Return the predictions that the losses of the largest weight compare, among the blobs ``outputs``."""
    weights = {
        layer.bottom[0]: weight(layer)
        for layer in removed
        if layer.bottom and layer.bottom[0] in outputs and weight(layer)
    }
    return [blob for blob, loss_weight in weights.items() if loss_weight == max(weights.values())]


def with_native(net: Any) -> Any:
    """Return the network in layers of BVLC Caffe whose sums have one order, whatever the addresses of the memory.

    L1Loss, of NVIDIA's fork, is the sum of absolute differences / batch size. SmoothL1Loss is that of Fast R-CNN (Girshick 2015,
    https://arxiv.org/abs/1504.08083, eq. 3): the sum of o s(i d) / batch size with optional third and fourth inputs i and
    o, where s(x) is (sigma x)^2 / 2 for |x| < 1 / sigma^2 and |x| - 1 / (2 sigma^2) beyond.

    A Reduction of type ASUM becomes the SUM of absolute values: ASUM uses OpenBLAS's sasum, which on processors with AVX2 adds
    the elements before the first aligned one by themselves, so that one training reports several losses.
    """
    result = prototxt.of_layers(net.name, ())
    for layer in net.layer:
        if layer.type == "Reduction" and layer.reduction_param.operation == ReductionParameter.ASUM:
            size = _absolute(result, layer.name, layer.bottom[0], list(layer.propagate_down))
            copy = result.layer.add()
            copy.CopyFrom(layer)
            copy.bottom[0], copy.reduction_param.operation = size, ReductionParameter.SUM
            continue
        if layer.type not in ("L1Loss", "SmoothL1Loss"):
            result.layer.add().CopyFrom(layer)
            continue
        top = layer.top[0] if layer.top else f"{layer.name}_value"
        difference = _difference(result, layer.name, layer.bottom[:2], list(layer.propagate_down))
        if layer.type == "L1Loss":
            _reduced(result, layer.name, _absolute(result, layer.name, difference), "SUM", 1.0, weight(layer), top)
            continue
        weights = [_flat(result, layer.name, blob) for blob in layer.bottom[2:]]
        if weights:
            difference = class_losses.product(result, f"{layer.name}_inside", difference, weights[0])
        smooth = _smooth(result, layer.name, difference, layer.smooth_l1_loss_param.sigma)
        if len(weights) > 1:
            smooth = class_losses.product(result, f"{layer.name}_outside", smooth, weights[1])
        _reduced(result, layer.name, smooth, "SUM", 1.0, weight(layer), top)
    return result


# The functions of the named losses append layers to ``net`` that compare its output with the label. ``factor`` is 1 / (elements
# of an image), so that the loss is the mean over all elements.


def l1(net: Any, output: str, factor: float) -> None:
    """Append the mean absolute difference."""
    _reduced(net, "loss", _difference(net, "loss", [output, LABEL], []), "ASUM", factor, 1.0, "loss")


def l2(net: Any, output: str, factor: float) -> None:
    """Append the mean squared difference."""
    _reduced(net, "loss", _difference(net, "loss", [output, LABEL], []), "SUMSQ", factor, 1.0, "loss")


def smooth_l1(net: Any, output: str, factor: float) -> None:
    """Append smooth L1."""
    smooth = _smooth(net, "loss", _difference(net, "loss", [output, LABEL], []), 1.0)
    _reduced(net, "loss", smooth, "SUM", factor, 1.0, "loss")


def huber(net: Any, output: str, factor: float, delta: float) -> None:
    """Append Huber's loss: delta times smooth L1 with its threshold, 1 / sigma^2, at delta."""
    smooth = _smooth(net, "loss", _difference(net, "loss", [output, LABEL], []), delta**-0.5)
    _reduced(net, "loss", smooth, "SUM", delta * factor, 1.0, "loss")


BY_ELEMENT: dict[str, Callable[..., None]] = {"l1": l1, "l2": l2, "smooth_l1": smooth_l1, "huber": huber}


def _flat(net: Any, name: str, blob: str) -> str:
    """Append a blob's vectors: losses compare element by element in any shape, but Eltwise needs equal shapes."""
    return vectors(net, f"{name}_{blob}_flat", blob)


def _difference(net: Any, name: str, bottoms: Any, propagate: list[bool]) -> str:
    """Append the difference of two blobs; return its blob."""
    difference = f"{name}_difference"
    flat = [_flat(net, name, blob) for blob in bottoms]
    layer = net.layer.add(name=difference, type="Eltwise", bottom=flat, top=[difference], propagate_down=propagate[:2])
    layer.eltwise_param.operation = EltwiseParameter.SUM
    layer.eltwise_param.coeff.extend([1, -1])
    return difference


def _absolute(net: Any, name: str, blob: str, propagate: Collection[bool] = ()) -> str:
    """Append the absolute values of a blob; return their blob."""
    size = f"{name}_absolute"
    net.layer.add(name=size, type="AbsVal", bottom=[blob], top=[size], propagate_down=propagate)
    return size


def _smooth(net: Any, name: str, blob: str, sigma: float) -> str:
    """Append smooth L1 of each element d: r + (sigma m)^2 / 2 with t = 1 / sigma^2, r = max(|d| - t, 0), m = |d| - r."""
    size = _absolute(net, name, blob)
    beyond, linear, within, square, smooth = (
        f"{name}_{part}" for part in ("beyond", "linear", "within", "square", "smooth")
    )
    net.layer.add(name=beyond, type="Power", bottom=[size], top=[beyond]).power_param.shift = -1 / sigma**2
    net.layer.add(name=linear, type="ReLU", bottom=[beyond], top=[linear])
    net.layer.add(name=within, type="Eltwise", bottom=[size, linear], top=[within]).eltwise_param.coeff.extend([1, -1])
    power = net.layer.add(name=square, type="Power", bottom=[within], top=[square]).power_param
    power.power, power.scale = 2, sigma / 2**0.5
    net.layer.add(name=smooth, type="Eltwise", bottom=[linear, square], top=[smooth])
    return smooth


def _reduced(net: Any, name: str, bottom: str, operation: str, coeff: float, weight: float, top: str) -> None:
    """Append a reduction of each image, then the mean over the batch, so that the loss does not depend on the batch size."""
    per_image = net.layer.add(name=f"{name}_each", type="Reduction", bottom=[bottom], top=[f"{name}_each"])
    per_image.reduction_param.operation = ReductionParameter.ReductionOp.Value(operation)
    per_image.reduction_param.axis = 1
    per_image.reduction_param.coeff = coeff
    mean = net.layer.add(name=name, type="Reduction", bottom=[f"{name}_each"], top=[top], loss_weight=[weight])
    mean.reduction_param.operation = ReductionParameter.MEAN
