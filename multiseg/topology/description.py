"""The plain data of a described network; multiseg.topology.topology adds comparing, drawing and reading it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from multiseg.network import LabelKind
from multiseg.topology.layer import Layer, Shape


@dataclass(frozen=True, eq=False)
class Description:
    """The layers of a network as it is deployed, for images of ``input_shape`` (C, H, W).

    ``layers`` are in an order in which each follows those it reads. ``shared`` are groups of layers that have a weight in common.
    ``loss`` describes the file's own loss in words. ``loss_labels`` is the kind of labels that it takes, None where that is
    unknown (multiseg.network.LabelKind); ``cross_entropy``: it is the mean cross entropy of the softmax, unweighted, over all
    places whose label is not to be ignored.
    """

    source: str
    kind: str
    input: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]
    loss: str | None = None
    loss_labels: LabelKind | None = None
    cross_entropy: bool = False
    shared: tuple[tuple[str, ...], ...] = ()

    @property
    def leading(self) -> tuple[Layer, ...]:
        """The layers that lead to an output, in order: the network without what it does not use."""
        needed, found = set(self.outputs), list[Layer]()
        for layer in reversed(self.layers):
            if needed.intersection(layer.outputs):
                needed.update(layer.inputs)
                found.append(layer)
        return tuple(reversed(found))

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every value, without the batch."""
        made = {name: shape for layer in self.layers for name, shape in zip(layer.outputs, layer.shapes, strict=True)}
        return {self.input: self.input_shape, **made}

    @property
    def weights(self) -> dict[str, Shape]:
        """Shapes of the network's neutral weights, by their names."""
        return {f"{layer.name}.{part}": shape for layer in self.layers for part, shape in layer.weights.items()}

    @property
    def shared_weights(self) -> list[str]:
        """Names of the layers whose weights are another's too, or that are computed several times."""
        layers = self.leading
        named = Counter(f"{layer.name}.{part}" for layer in layers for part in layer.weights)
        found = {name for group in self.shared for name in group}
        found |= {name.rpartition(".")[0] for name, count in named.items() if count > 1}
        return list(dict.fromkeys(layer.name for layer in layers if layer.name in found))

    @property
    def parameter_count(self) -> int:
        """How many numbers the weights are."""
        return sum(map(math.prod, self.weights.values()))

    @property
    def multiply_adds(self) -> int:
        """For one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Plain dict; :meth:`of` makes the topology of it again."""
        layers = [
            {
                "name": layer.name,
                "type": layer.type,
                "inputs": list(layer.inputs),
                "outputs": list(layer.outputs),
                "parameters": dict(layer.parameters),
                "shapes": [list(shape) for shape in layer.shapes],
                "weights": {part: list(shape) for part, shape in layer.weights.items()},
                "multiply_adds": layer.multiply_adds,
            }
            for layer in self.layers
        ]
        return {
            "source": self.source,
            "kind": self.kind,
            "input": self.input,
            "input_shape": list(self.input_shape),
            "outputs": list(self.outputs),
            "loss": self.loss,
            "loss_labels": self.loss_labels,
            "cross_entropy": self.cross_entropy,
            "shared": [list(group) for group in self.shared],
            "parameter_count": self.parameter_count,
            "multiply_adds": self.multiply_adds,
            "layers": layers,
        }
