"""List the networks that can be chosen by name, with their sizes."""

from __future__ import annotations

import math
from typing import Any

from multiseg.model_files.reading import describe
from multiseg.model_files.shipped import Shape, ShippedModel
from multiseg.topology import Topology


def summary(model: ShippedModel, input_shape: Shape | None = None, classes: int | None = None) -> dict[str, Any]:
    """Return a network's name, title, labels, input_shape (C, H, W), outputs, parameters, multiply_adds and files.

    Parameters are the numbers that training may change; stored averages of batch normalization are not among them.
    Multiply-adds are those of one image of ``input_shape``. Both default to the values of the table.
    """
    shape, outputs = input_shape or model.input_shape, classes or model.classes
    topology = describe(model.name, shape, classes=outputs)
    return {
        "name": model.name,
        "title": model.title,
        "labels": model.labels,
        "input_shape": list(shape),
        "outputs": outputs,
        "parameters": parameters(topology),
        "multiply_adds": topology.multiply_adds,
        "files": [str(file) for file in model.files],
    }


def parameters(topology: Topology) -> int:
    """Return how many numbers of a network a training may change: all weights but stored averages."""
    return sum(
        math.prod(shape)
        for layer in topology.layers
        for part, shape in layer.weights.items()
        if part not in ("running_mean", "running_var")
    )
