"""A whole network, described neutrally."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from multiseg.errors import ModelError
from multiseg.topology.canonical import Canonical, canonical
from multiseg.topology.comparison import Difference, compare
from multiseg.topology.layer import Layer, Shape
from multiseg.topology.shapes import RULES, ShapeError, infer


@dataclass(frozen=True, eq=False)
class Topology:
    """The network in a file, as it is deployed, for images of ``input_shape`` (C, H, W).

    ``layers`` come in an order in which each follows those it reads. ``==`` says whether two files hold the same network, at
    these sizes: it compares structure, not names, in the form of multiseg.topology.canonical; losses do not count. ``shared`` are
    groups of layers that have a weight in common.
    """

    source: str
    kind: str
    input: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]
    loss: str | None = None
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

    @cached_property
    def canonical(self) -> Canonical:
        """What it has in common with every other file that holds the same network."""
        return canonical(self)

    def __eq__(self, other: object) -> bool:
        return self.canonical.key == other.canonical.key if isinstance(other, Topology) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.canonical.key)

    def diff(self, other: Topology) -> Difference:
        """How it differs from another network, in words; false where they are equal."""
        return compare(self, other)

    def to_svg(self, path: str | Path) -> Path:
        """Draw it into a file: boxes from top to bottom with the shapes that pass between them; .svg, .png or .html.

        Raises SettingsError for another ending.
        """
        from multiseg.topology import drawing  # which needs Pillow, and a worker does not have it

        return drawing.write(self, path)

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
            "shared": [list(group) for group in self.shared],
            "parameter_count": self.parameter_count,
            "multiply_adds": self.multiply_adds,
            "layers": layers,
        }

    @classmethod
    def of(cls, source: str, kind: str, description: Mapping[str, Any]) -> Topology:
        """From what a backend's reader says of a file; see multiseg.model_files.

        Shapes, weights and multiply-adds are inferred for the types of the vocabulary; of others the reader gives ``shapes``
        and ``weights``. Raises ModelError naming the file and the layer that cannot take its inputs.
        """
        known: dict[str, Shape] = {description["input"]: tuple(description["input_shape"])}
        layers = []
        for node in description["layers"]:
            layer = _layer(source, node, known)
            known.update(zip(layer.outputs, layer.shapes, strict=True))
            layers.append(layer)
        return cls(
            source=source,
            kind=kind,
            input=description["input"],
            input_shape=tuple(description["input_shape"]),
            layers=tuple(layers),
            outputs=tuple(description["outputs"]),
            loss=description.get("loss"),
            shared=tuple(tuple(group) for group in description.get("shared", ())),
        )


def _layer(source: str, node: Mapping[str, Any], known: Mapping[str, Shape]) -> Layer:
    name, kind, inputs = node["name"], node["type"], tuple(node["inputs"])
    outputs = tuple(node.get("outputs") or (name,))
    parameters = dict(node.get("parameters", {}))
    unknown = [value for value in inputs if value not in known]
    if unknown:
        raise ModelError(
            f"{source}: layer {name!r}: reads {unknown[0]!r}, which no layer before it makes; known are: {_few(known)}"
        )
    if kind not in RULES:
        shapes = [tuple(shape) for shape in node["shapes"]]
        weights = {part: tuple(shape) for part, shape in node.get("weights", {}).items()}
        return Layer(name, kind, inputs, outputs, parameters, tuple(shapes), weights)
    try:
        shapes, weights, multiply_adds = infer(kind, parameters, [known[value] for value in inputs])
    except ShapeError as error:
        raise ModelError(f"{source}: layer {name!r} ({kind}): {error}") from error
    return Layer(name, kind, inputs, outputs, parameters, tuple(shapes), weights, multiply_adds)


def _few(names: Iterable[str], most: int = 12) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
