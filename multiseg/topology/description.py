"""The data of a described network; multiseg.topology.topology adds comparison, drawing and reading."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from multiseg.network import LabelKind
from multiseg.topology.layer import Layer, Shape


@dataclass(frozen=True, eq=False)
class Description:
    """The layers of a network for prediction, for images of ``input_shape`` (C, H, W).

    ``layers`` are in topological order. ``shared`` are groups of names of layers that have a weight in common. ``tied`` are the
    groups of the names of these weights, also in layers that no output depends on, if they have the same neutral layout in all.
    ``loss`` describes the file's own loss in words. ``loss_labels`` is the kind of labels that it takes, None if unknown
    (multiseg.network.LabelKind); ``cross_entropy``: whether it is the unweighted mean cross entropy of the softmax over all
    pixels whose label is not ignored. ``objective`` is the file's cross entropy in detail, as the plain values of
    multiseg.topology.objective.Objective; None if it is unknown or another loss. ``mean`` is what the
    file has subtracted from images before the network, a number for each channel, colours as B, G, R; None if it states none.
    ``notes`` are sentences about what the file leaves ambiguous, and about what a file written of the network cannot express;
    ``remarks`` are sentences that become notes if the network is cut at the layer of that name (multiseg.topology.cutting).

    ``aliases`` are further names of values, such as Caffe's blobs. ``more_inputs`` are the inputs after the first, with their
    shapes. ``output_titles`` are the names that the file itself gives its outputs, such as the keys of a dict; empty if they are
    the names of the values.
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
    tied: tuple[tuple[str, ...], ...] = ()
    objective: Mapping[str, Any] | None = None
    mean: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()
    remarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    more_inputs: Mapping[str, Shape] = field(default_factory=dict)
    output_titles: tuple[str, ...] = ()

    @property
    def inputs(self) -> dict[str, Shape]:
        """Shapes (C, H, W) of all inputs, without the batch, by name; the first is ``input``."""
        return {self.input: self.input_shape, **self.more_inputs}

    @property
    def titles(self) -> tuple[str, ...]:
        """Name of each output for users: the file's own, else that of its value."""
        return self.output_titles or self.outputs

    @property
    def trains(self) -> bool:
        """Whether the network has one input and one output, as training wants."""
        return len(self.outputs) == 1 and not self.more_inputs

    @property
    def leading(self) -> tuple[Layer, ...]:
        """The layers that an output depends on, in order: the network without unused layers."""
        needed, layers = set(self.outputs), list[Layer]()
        for layer in reversed(self.layers):
            if needed.intersection(layer.outputs):
                needed.update(layer.inputs)
                layers.append(layer)
        return tuple(reversed(layers))

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every value, without the batch."""
        outputs = {
            name: shape for layer in self.layers for name, shape in zip(layer.outputs, layer.shapes, strict=True)
        }
        return {**self.inputs, **outputs}

    @property
    def weights(self) -> dict[str, Shape]:
        """Shapes of the network's neutral weights, by their names."""
        return {f"{layer.name}.{part}": shape for layer in self.layers for part, shape in layer.weights.items()}

    @property
    def shared_weights(self) -> list[str]:
        """Names of the layers that share weights with another layer, or that are computed several times."""
        layers = self.leading
        counts = Counter(f"{layer.name}.{part}" for layer in layers for part in layer.weights)
        shared = {name for group in self.shared for name in group}
        shared |= {name.rpartition(".")[0] for name, count in counts.items() if count > 1}
        return list(dict.fromkeys(layer.name for layer in layers if layer.name in shared))

    @property
    def untied(self) -> list[str]:
        """Names of the layers that share weights with other layers of which ``tied`` does not have the names."""
        layers = self.leading
        names = {layer.name for layer in layers}
        weights = {f"{layer.name}.{part}" for layer in layers for part in layer.weights}
        groups = Counter(tuple(name for name in group if name in names) for group in self.shared)
        groups -= Counter(tuple(name.rpartition(".")[0] for name in group if name in weights) for group in self.tied)
        return list(dict.fromkeys(name for group in groups if len(group) > 1 for name in group))

    @property
    def owners(self) -> dict[str, str]:
        """The first name of each array that has several ones, by each of its names; names of unused layers do not count."""
        weights = self.weights
        groups = ([name for name in group if name in weights] for group in self.tied)
        return {name: group[0] for group in groups for name in group}

    @property
    def parameter_count(self) -> int:
        """Number of elements of all weights."""
        return sum(map(math.prod, self.weights.values()))

    @property
    def multiply_adds(self) -> int:
        """Number of multiply-adds for one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of plain values, from which :meth:`of` makes the topology again."""
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
                **({"frozen": True} if layer.frozen else {}),
                **({"initial": layer.initial} if layer.initial else {}),
                **({"reason": layer.reason} if layer.reason else {}),
            }
            for layer in self.layers
        ]
        return {
            "source": self.source,
            "kind": self.kind,
            "input": self.input,
            "input_shape": list(self.input_shape),
            **(
                {"more_inputs": {name: list(shape) for name, shape in self.more_inputs.items()}}
                if self.more_inputs
                else {}
            ),
            "outputs": list(self.outputs),
            **({"output_titles": list(self.output_titles)} if self.titles != self.outputs else {}),
            "loss": self.loss,
            "loss_labels": self.loss_labels,
            "cross_entropy": self.cross_entropy,
            "objective": None if self.objective is None else dict(self.objective),
            "mean": None if self.mean is None else list(self.mean),
            "shared": [list(group) for group in self.shared],
            **({"tied": [list(group) for group in self.tied]} if self.tied else {}),
            "parameter_count": self.parameter_count,
            "multiply_adds": self.multiply_adds,
            "layers": layers,
        }
