"""The named losses of classes, in layers of Caffe. docs/losses.md has their formulas.

Cross entropies are SoftmaxWithLoss, InfogainLoss (class weights are the diagonal of its matrix) and SigmoidCrossEntropyLoss. The
Dice loss is made of Softmax, Tile, Bias, AbsVal, Threshold, Power, Eltwise and Reduction. Caffe's layers cannot express the focal
loss where a probability is rounded to 0 or 1, so it is a Python layer, multiseg_caffe.loss_layers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from multiseg_caffe.constants import constants, diagonal
from multiseg_caffe.proto import EltwiseParameter, ReductionParameter
from multiseg_caffe.sources import LABEL

PYTHON = "multiseg_caffe.loss_layers"
LOSS = "loss"
BINARY = "binary_cross_entropy"  # the one that compares element by element
IGNORED_TARGET = -1.5  # of binary_cross_entropy: an ignored label is this times label_max, which Caffe truncates to -1


@dataclass(frozen=True)
class Labelled:
    """What a loss of classes depends on: the blob of the scores, of ``axes`` axes, its classes, the label that does not count."""

    scores: str
    axes: int
    classes: int
    ignore: int | None
    weights: Sequence[float]


def cross_entropy(net: Any, by: Labelled) -> None:
    """Append the weighted cross entropy of the softmax, divided by the number of labels that count."""
    matrix = [diagonal(net, by.weights, "loss_matrix")] if by.weights else []
    kind = "InfogainLoss" if matrix else "SoftmaxWithLoss"
    layer = net.layer.add(name=LOSS, type=kind, bottom=[by.scores, LABEL, *matrix], top=[LOSS], loss_weight=[1.0])
    if by.ignore is not None:
        layer.loss_param.ignore_label = by.ignore


def dice(net: Any, by: Labelled, smooth: float) -> None:
    """Append the soft Dice loss, mean over images and classes."""
    net.layer.add(name="dice_softmax", type="Softmax", bottom=[by.scores], top=["dice_softmax"]).softmax_param.axis = 1
    label = LABEL
    if by.axes == 2:  # one label for each image: (N, 1, 1, 1)
        net.layer.add(name="dice_label", type="Flatten", bottom=[LABEL], top=["dice_label"])
        label = "dice_label"
    labels = _tiled(net, "dice_labels", label, by.classes)
    hits = _within(net, "dice_hits", _shifted(net, labels, by.classes))
    p = "dice_softmax"
    if by.ignore is not None:
        apart = _power(net, "dice_apart", label, shift=-float(by.ignore))
        counted = _tiled(net, "dice_counted_tiles", _beyond(net, "dice_counted", apart), by.classes)
        p = product(net, "dice_p", p, counted)
        hits = product(net, "dice_counted_hits", hits, counted)  # the ignored label may be a class
    both = _summed(net, "dice_both", product(net, "dice_overlap", p, hits), by.axes)
    sizes = [_summed(net, "dice_size", p, by.axes), _summed(net, "dice_true", hits, by.axes)]
    net.layer.add(name="dice_sizes", type="Eltwise", bottom=sizes, top=["dice_sizes"])
    above = _power(net, "dice_above", both, scale=2.0, shift=smooth)
    below = _power(net, "dice_below", "dice_sizes", shift=smooth)
    inverse = _power(net, "dice_inverse", below, power=-1.0)
    missed = _power(net, "dice_missed", product(net, "dice_scores", above, inverse), scale=-1.0, shift=1.0)
    mean = net.layer.add(name="dice", type="Reduction", bottom=[missed], top=["dice"], loss_weight=[1.0])
    mean.reduction_param.operation = ReductionParameter.MEAN


def _tiled(net: Any, name: str, bottom: str, tiles: int) -> str:
    """Append a copy of a blob of one channel for each class; return its blob."""
    net.layer.add(name=name, type="Tile", bottom=[bottom], top=[name]).tile_param.tiles = tiles
    return name


def _shifted(net: Any, labels: str, classes: int) -> str:
    """Append the labels minus the index of the class; return its blob."""
    indices = constants(net, "dice_indices", [-float(index) for index in range(classes)])
    net.layer.add(
        name="dice_distance", type="Bias", bottom=[labels, indices], top=["dice_distance"]
    ).bias_param.axis = 1
    return "dice_distance"


def _beyond(net: Any, name: str, distance: str) -> str:
    """Append 1 where a distance between labels is not 0, else 0; return its blob."""
    net.layer.add(name=f"{name}_size", type="AbsVal", bottom=[distance], top=[f"{name}_size"])
    layer = net.layer.add(name=name, type="Threshold", bottom=[f"{name}_size"], top=[name])
    layer.threshold_param.threshold = 0.5
    return name


def _within(net: Any, name: str, distance: str) -> str:
    """Append 1 where a distance between labels is 0, else 0; return its blob."""
    return _power(net, name, _beyond(net, f"{name}_not", distance), scale=-1.0, shift=1.0)


def _power(net: Any, name: str, bottom: str, power: float = 1.0, scale: float = 1.0, shift: float = 0.0) -> str:
    """Append (shift + scale x)^power; return its blob."""
    parameters = net.layer.add(name=name, type="Power", bottom=[bottom], top=[name]).power_param
    parameters.power, parameters.scale, parameters.shift = power, scale, shift
    return name


def product(net: Any, name: str, first: str, second: str) -> str:
    """Append the product of two blobs; return its blob."""
    layer = net.layer.add(name=name, type="Eltwise", bottom=[first, second], top=[name])
    layer.eltwise_param.operation = EltwiseParameter.PROD
    return name


def _summed(net: Any, name: str, bottom: str, axes: int) -> str:
    """Append the sum over the positions of an image, for each class; return its blob."""
    if axes == 2:
        return bottom
    net.layer.add(name=name, type="Reduction", bottom=[bottom], top=[name]).reduction_param.axis = 2
    return name


def cross_entropy_and_dice(net: Any, by: Labelled, smooth: float) -> None:
    """Append both losses."""
    cross_entropy(net, by)
    dice(net, by, smooth)


def focal(net: Any, by: Labelled, gamma: float) -> None:
    """Append the focal loss, divided by the number of labels that count."""
    layer = net.layer.add(name=LOSS, type="Python", bottom=[by.scores, LABEL], top=[LOSS], loss_weight=[1.0])
    layer.propagate_down.extend([True, False])
    layer.python_param.module, layer.python_param.layer = PYTHON, "Focal"
    layer.python_param.param_str = json.dumps({"gamma": gamma, "ignore": by.ignore, "weights": list(by.weights)})


def binary_cross_entropy(net: Any, by: Labelled, label_max: float) -> None:
    """Append the cross entropy of the sigmoid of one channel; labels that do not count are IGNORED_TARGET x label_max."""
    targets = _power(net, "loss_targets", LABEL, scale=1 / label_max)
    layer = net.layer.add(
        name=LOSS, type="SigmoidCrossEntropyLoss", bottom=[by.scores, targets], top=[LOSS], loss_weight=[1.0]
    )
    layer.loss_param.normalization = layer.loss_param.VALID
    if by.ignore is not None:
        layer.loss_param.ignore_label = int(IGNORED_TARGET)


LOSSES: dict[str, Callable[..., None]] = {
    "cross_entropy": cross_entropy,
    "dice": dice,
    "cross_entropy+dice": cross_entropy_and_dice,
    "focal": focal,
    BINARY: binary_cross_entropy,
}


def scores(net: Any, deployed: Any, output: str, loss: str) -> str:
    """Return the blob of ``net`` whose scores a loss compares: the input of the softmax or sigmoid that ``deployed`` ends in."""
    last = "Sigmoid" if loss == BINARY else "Softmax"
    for layer in deployed.layer:
        if list(layer.top) == [output] and layer.type == last and layer.softmax_param.axis == 1:
            blob = str(layer.bottom[0])
            produced = [top for other in net.layer for top in other.top]
            return blob if blob != output and blob in produced else output
    return output


def counted(layer: Any, labels: Any) -> int:
    """Return the number of labels that count in a Python layer of PYTHON."""
    ignore = json.loads(layer.python_param.param_str)["ignore"]
    return int(labels.size if ignore is None else (labels != ignore).sum())
