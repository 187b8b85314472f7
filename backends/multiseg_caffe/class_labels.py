"""Labels that Caffe's layers use as indices: which are ignored, and a check before each such layer.

Caffe reads memory out of bounds for an index beyond the scores, without a message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiseg.errors import ModelError
from multiseg.network import Array
from multiseg_caffe import losses
from multiseg_caffe.describing.axes import axis
from multiseg_caffe.sources import LABEL

INDEXING = (*losses.BY_CLASS, "Accuracy")
IGNORING = ("SoftmaxWithLoss", "InfogainLoss", "Accuracy")  # the types that have an ignore_label


@dataclass(frozen=True)
class Guard:
    """A layer of a net that uses labels as indices: its position, the position of its labels among the net's blobs."""

    layer: str
    position: int
    labels: int
    classes: int
    ignore: int | None

    def check(self, labels: Array, path: str) -> None:
        """Raise ModelError if a label is no index of a score, and not ignored."""
        indices = np.trunc(labels)
        wrong = ~((indices >= 0) & (indices < self.classes))
        if self.ignore is not None:
            wrong &= indices != self.ignore
        if wrong.any():
            raise ModelError(
                f"{path}: layer {self.layer!r}: a label is class {labels[wrong][0]:g}, the output has the classes 0 to "
                f"{self.classes - 1}"
            )


def _parameters(layer: Any) -> Any:
    return layer.accuracy_param if layer.type == "Accuracy" else layer.loss_param


def _ignored(layer: Any) -> int | None:
    parameters = _parameters(layer)
    return int(parameters.ignore_label) if layer.type in IGNORING and parameters.HasField("ignore_label") else None


def class_count(layer: Any, scores: Sequence[int]) -> int:
    """Return the number of classes that a layer distinguishes, for scores of this shape (N, ...)."""
    if layer.type in ("HingeLoss", "MultinomialLogisticLoss"):
        return math.prod(scores[1:])
    parameters = {"Accuracy": layer.accuracy_param, "InfogainLoss": layer.infogain_loss_param}
    return scores[axis(parameters.get(layer.type, layer.softmax_param).axis, tuple(scores))]


def ignoring(net: Any, value: int | None, path: str) -> int | None:
    """Make the layers of ``net`` that use labels as indices ignore ``value``; return the label to use for it.

    This is the label that the network's loss ignores already, if there is one: a layer can ignore one label only. An Accuracy
    ignores what the loss ignores. Raises ModelError that names a loss that cannot ignore labels.
    """
    layers = [layer for layer in net.layer if layer.type in INDEXING]
    own = next((_ignored(layer) for layer in layers if layer.type != "Accuracy" and _ignored(layer) is not None), None)
    ignored = value if own is None else own
    if ignored is None:
        return None
    for layer in layers:
        if layer.type in IGNORING:
            if _ignored(layer) is None and (value is not None or layer.type == "Accuracy"):
                _parameters(layer).ignore_label = ignored
        elif value is not None:
            raise ModelError(f"{path}: layer {layer.name!r} ({layer.type}): cannot ignore labels, here {value}")
    return ignored


def classes_of(net: Any, shapes: Mapping[str, Sequence[int]]) -> int | None:
    """Return the smallest number of classes that labels of ``net`` are compared with directly; None if there are none."""
    counts = [
        class_count(layer, shapes[layer.bottom[0]])
        for layer in net.layer
        if layer.type in INDEXING and len(layer.bottom) > 1 and layer.bottom[1] == LABEL
        if layer.bottom[0] in shapes
    ]
    scaled = any(layer.type == "Power" and list(layer.top) == [LABEL] for layer in net.layer)
    return min(counts) if counts and not scaled else None


def guards(net: Any, definition: Any) -> list[Guard]:
    """Return the layers of a pycaffe net that use labels as indices, in order; ``definition`` is its NetParameter."""
    layers = {layer.name: layer for layer in definition.layer if layer.type in INDEXING}
    blobs = list(net.blobs.values())
    result = []
    for position, name in enumerate(net._layer_names):
        if name in layers:
            scores, labels = list(net._bottom_ids(position))[:2]
            classes = class_count(layers[name], tuple(blobs[scores].data.shape))
            result.append(Guard(name, position, labels, classes, _ignored(layers[name])))
    return result


def forward(net: Any, checks: Sequence[Guard], path: str) -> None:
    """Run a forward pass, with each check before its layer. Raises ModelError before Caffe would read out of bounds."""
    blobs, start = list(net.blobs.values()), 0
    for guard in checks:
        if guard.position > start:
            net._forward(start, guard.position - 1)
            start = guard.position
        guard.check(blobs[guard.labels].data, path)
    net._forward(start, len(net.layers) - 1)
