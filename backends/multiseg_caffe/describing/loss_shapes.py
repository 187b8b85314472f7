"""Shapes that losses and accuracies take, as Caffe checks them."""

from __future__ import annotations

import math
from typing import Any

from multiseg_caffe.describing.axes import Made, Shape, axis, listed
from multiseg_caffe.describing.windows import WrongLayer


def per_label_shapes(layer: Any, bottoms: list[Shape]) -> Made:
    """Losses and metrics that take one class number for each place of the prediction."""
    p = {"Accuracy": layer.accuracy_param, "InfogainLoss": layer.infogain_loss_param}.get(
        layer.type, layer.softmax_param
    )
    along = axis(p.axis, bottoms[0])
    places = math.prod(bottoms[0]) // bottoms[0][along]
    if math.prod(bottoms[1]) != places:
        raise WrongLayer(
            f"needs one class number for each of the {places} places of {bottoms[0]}, its labels are {bottoms[1]}"
        )
    if layer.type == "Accuracy":
        if layer.accuracy_param.top_k > bottoms[0][along]:
            raise WrongLayer(f"has top_k {layer.accuracy_param.top_k} for {bottoms[0][along]} classes")
        return [(), (bottoms[0][along],)], []
    return [(), bottoms[0]], []


def of_classes_shapes(layer: Any, bottoms: list[Shape]) -> Made:
    if math.prod(bottoms[1]) != bottoms[0][0]:
        raise WrongLayer(f"needs one class number for each of {bottoms[0][0]} images, its labels are {bottoms[1]}")
    return [()], []


def pairwise_shapes(layer: Any, bottoms: list[Shape]) -> Made:
    """Losses that compare element by element; shapes may differ, their numbers of elements not."""
    for other in bottoms[1:]:
        if other[:1] != bottoms[0][:1] or math.prod(other) != math.prod(bottoms[0]):
            raise WrongLayer(f"compares {bottoms[0]} with {other}, which differ in their number of elements")
    return [()], []


def contrastive_shapes(layer: Any, bottoms: list[Shape]) -> Made:
    if bottoms[0][:2] != bottoms[1][:2] or any(math.prod(each[2:]) != 1 for each in bottoms[:2]):
        raise WrongLayer(f"compares two vectors for each image, its inputs are {listed(bottoms)}")
    return [()], []
