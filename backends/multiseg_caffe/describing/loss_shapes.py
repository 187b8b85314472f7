"""Check and infer the shapes of losses and accuracies, as Caffe does.

The functions take a LayerParameter and its bottoms' shapes; they raise WrongLayer for shapes that Caffe rejects.
"""

from __future__ import annotations

import math
from typing import Any

from multiseg_caffe.describing.axes import Inferred, Shape, axis, listed
from multiseg_caffe.describing.windows import WrongLayer


def per_label_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    """Infer shapes of losses and metrics whose labels are one class index for each position of the prediction."""
    p = {"Accuracy": layer.accuracy_param, "InfogainLoss": layer.infogain_loss_param}.get(
        layer.type, layer.softmax_param
    )
    along = axis(p.axis, bottoms[0])
    positions = math.prod(bottoms[0]) // bottoms[0][along]
    if math.prod(bottoms[1]) != positions:
        raise WrongLayer(
            f"needs one class index for each of the {positions} positions of {bottoms[0]}, its labels are {bottoms[1]}"
        )
    if layer.type == "InfogainLoss" and len(bottoms) > 2 and math.prod(bottoms[2]) != bottoms[0][along] ** 2:
        rows = math.isqrt(math.prod(bottoms[2]))
        raise WrongLayer(
            f"has weights for {rows} classes (class_weighting, or its matrix), its scores {bottoms[0][along]}"
        )
    if layer.type == "Accuracy":
        if layer.accuracy_param.top_k > bottoms[0][along]:
            raise WrongLayer(f"has top_k {layer.accuracy_param.top_k} for {bottoms[0][along]} classes")
        return [(), (bottoms[0][along],)], []
    return [(), bottoms[0]], []


def of_classes_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    """Infer shapes of losses whose labels are one class index for each image."""
    if math.prod(bottoms[1]) != bottoms[0][0]:
        raise WrongLayer(f"needs one class index for each of {bottoms[0][0]} images, its labels are {bottoms[1]}")
    return [()], []


def pairwise_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    """Infer shapes of elementwise losses; the shapes of their inputs may differ, but not the numbers of elements."""
    for other in bottoms[1:]:
        if other[:1] != bottoms[0][:1] or math.prod(other) != math.prod(bottoms[0]):
            raise WrongLayer(f"compares {bottoms[0]} with {other}, which differ in their number of elements")
    return [()], []


def contrastive_shapes(layer: Any, bottoms: list[Shape]) -> Inferred:
    """Infer shapes of ContrastiveLoss, which compares two vectors (N, C) and labels."""
    if bottoms[0][:2] != bottoms[1][:2] or any(math.prod(shape[2:]) != 1 for shape in bottoms[:2]):
        raise WrongLayer(f"compares two vectors for each image, its inputs are {listed(bottoms)}")
    return [()], []
