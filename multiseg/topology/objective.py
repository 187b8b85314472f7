"""The cross entropy that a network file is trained with, as part of its neutral description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from multiseg.topology.description import Description
from multiseg.topology.layer import Layer

KINDS = ("softmax", "sigmoid")
NORMALIZATIONS = ("valid", "full", "batch_size", "none", "weighted")
PROBABILITIES = {"softmax": "Softmax", "sigmoid": "Sigmoid"}  # the layer type that makes probabilities of the scores


@dataclass(frozen=True)
class Objective:
    """A cross entropy: of the softmax of scores and class indices, or of the sigmoid of scores and labels of 0 to 1.

    ``scores`` is the value of the network before its softmax or sigmoid, None if the file does not tell it. The sum over all
    positions (elements for a sigmoid) whose label is not in ``ignore`` is multiplied by ``weight`` and divided by, depending on
    ``normalization``: ``valid`` the number of positions that are not ignored, ``full`` that of all, ``batch_size`` the number of
    images, ``none`` 1; at least by 1. Labels are multiplied by ``label_scale`` first. The names are those of Caffe.

    With a ``matrix`` H of (classes, classes), the loss of a position with the label l is -sum over k of H[l, k] log p[k], as in
    Caffe's InfogainLoss; weights of classes are a diagonal. ``weighted`` divides by the sum of the labels' H[l, l] instead.
    """

    kind: str
    scores: str | None = None
    normalization: str = "valid"
    ignore: tuple[int, ...] = ()
    weight: float = 1.0
    label_scale: float = 1.0
    matrix: tuple[tuple[float, ...], ...] | None = None

    @property
    def is_mean(self) -> bool:
        """Whether it is the mean over the positions that are not ignored, of labels as they are."""
        plain = (self.normalization, self.weight, self.label_scale) == ("valid", 1.0, 1.0)
        return plain and self.matrix is None

    def to_json(self) -> dict[str, Any]:
        """Return a dict of plain values."""
        matrix = None if self.matrix is None else [list(row) for row in self.matrix]
        return {**asdict(self), "ignore": list(self.ignore), "matrix": matrix}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Objective:
        """Return the inverse of :meth:`to_json`."""
        matrix = values.get("matrix")
        rows = None if matrix is None else tuple(tuple(float(value) for value in row) for row in matrix)
        return cls(**{**values, "ignore": tuple(values.get("ignore", ())), "matrix": rows})


def objective_of(topology: Description, classes: bool) -> Objective | None:
    """Return what an exported file of this network is trained with; None for the target backend's own loss of images.

    With ``classes``, labels are class indices: the result is the file's own cross entropy, else the mean. Otherwise it is the
    file's own cross entropy of a sigmoid, if it has one. ``scores`` is a value of the network that is computed for its output.
    None for a network with several inputs or outputs, whose file has no loss.
    """
    if not topology.trains:
        return None
    own = None if topology.objective is None else Objective.from_json(topology.objective)
    kind = "softmax" if classes else "sigmoid"
    if own is None or own.kind != kind:
        if not classes:
            return None
        own = Objective(kind)
    layers = topology.leading
    values = {*topology.inputs, *(value for layer in layers for value in layer.outputs)}
    if own.scores in values:
        return own
    last = layers[-1] if layers else None
    return replace(own, scores=last.inputs[0] if last and _makes_probabilities(last, kind) else topology.outputs[0])


def _makes_probabilities(layer: Layer, kind: str) -> bool:
    along_channels = kind == "sigmoid" or layer.parameters.get("axis", 1) in (1, -len(layer.shapes[0]))
    return layer.type == PROBABILITIES[kind] and along_channels
