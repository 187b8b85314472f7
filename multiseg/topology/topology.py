"""The neutral description of a whole network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from multiseg.errors import ModelError
from multiseg.topology.canonical import Canonical, canonical
from multiseg.topology.comparison import compare
from multiseg.topology.description import Description
from multiseg.topology.difference import Difference
from multiseg.topology.layer import Layer, Shape
from multiseg.topology.vocabulary import VOCABULARY, ShapeError, infer


class Topology(Description):
    """The network in a file, for prediction, for images of ``input_shape`` (C, H, W).

    ``==`` returns whether two files hold the same network at these sizes: it compares structure, not names, by the canonical
    form (multiseg.topology.canonical), without losses.
    """

    @cached_property
    def canonical(self) -> Canonical:
        """The canonical form, equal for all files that hold the same network."""
        return canonical(self)

    def __eq__(self, other: object) -> bool:
        return self.canonical.key == other.canonical.key if isinstance(other, Topology) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.canonical.key)

    def diff(self, other: Topology) -> Difference:
        """Return the differences from another network in words; false if the networks are equal."""
        return Difference(**vars(compare(self, other)))

    def to_svg(self, path: str | Path, scale: float | None = None) -> Path:
        """Draw the network into a .svg, .png or .html file: boxes from top to bottom with the shapes that pass between them.

        ``scale``: pixels of a .png for one unit, by default 2, and less for a large network. Returns the path. Raises
        SettingsError for another extension.
        """
        from multiseg.topology import drawing  # needs Pillow, which a worker does not have

        return drawing.write(self, path, scale)

    @classmethod
    def of(cls, source: str, kind: str, description: Mapping[str, Any]) -> Topology:
        """Return the topology for the description that a backend's reader makes of a file; see multiseg.topology.interfaces.

        Shapes, weights and multiply-adds are inferred for the types of the vocabulary; for others the reader specifies
        ``shapes`` and ``weights``. Raises ModelError naming the file and the layer that cannot take its inputs.
        """
        more_inputs = {name: tuple(shape) for name, shape in description.get("more_inputs", {}).items()}
        known: dict[str, Shape] = {description["input"]: tuple(description["input_shape"]), **more_inputs}
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
            loss_labels=description.get("loss_labels"),
            cross_entropy=bool(description.get("cross_entropy")),
            shared=tuple(tuple(group) for group in description.get("shared", ())),
            tied=tuple(tuple(group) for group in description.get("tied", ())),
            objective=description.get("objective"),
            mean=None if description.get("mean") is None else tuple(description["mean"]),
            remarks={name: tuple(texts) for name, texts in description.get("remarks", {}).items()},
            aliases=dict(description.get("aliases", {})),
            more_inputs=more_inputs,
            output_titles=tuple(description.get("output_titles", ())),
        )


def _layer(source: str, node: Mapping[str, Any], known: Mapping[str, Shape]) -> Layer:
    name, kind, inputs = node["name"], node["type"], tuple(node["inputs"])
    outputs = tuple(node.get("outputs") or (name,))
    parameters = dict(node.get("parameters", {}))
    unknown = [value for value in inputs if value not in known]
    if unknown:
        raise ModelError(
            f"{source}: layer {name!r}: reads {unknown[0]!r}, which no earlier layer outputs; available are: {_few(known)}"
        )
    if kind not in VOCABULARY:
        shapes = [tuple(shape) for shape in node["shapes"]]
        weights = {part: tuple(shape) for part, shape in node.get("weights", {}).items()}
        return Layer(
            name, kind, inputs, outputs, parameters, tuple(shapes), weights, reason=node.get("reason")
        )  # fmt: skip
    try:
        shapes, weights, multiply_adds = infer(kind, parameters, [known[value] for value in inputs])
    except ShapeError as error:
        raise ModelError(f"{source}: layer {name!r} ({kind}): {error}") from error
    return Layer(
        name, kind, inputs, outputs, parameters, tuple(shapes), weights, multiply_adds,
        frozen=bool(node.get("frozen")), initial=node.get("initial"),
    )  # fmt: skip


def _few(names: Iterable[str], most: int = 12) -> str:
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
