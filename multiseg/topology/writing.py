"""Common parts of writers of a described network as a framework's source: order, names, numbers, unsupported layers."""

from __future__ import annotations

import keyword
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from multiseg.errors import ModelError
from multiseg.topology.layer import Layer, Shape
from multiseg.topology.names import unused
from multiseg.topology.topology import Topology
from multiseg.topology.vocabulary import VOCABULARY, sum_factors

# comment in a file beside lines that are right for no other size of images
ONLY = "right for images of"


class Refused(ValueError):
    """A framework cannot express a layer exactly; the message gives the reason, without the layer's name."""


class Writer:
    """Writes the layers that lead to the outputs of a topology. A subclass has a method for each type, in ``rules``."""

    title: ClassVar[str]  # name of the framework, for messages
    rules: ClassVar[Mapping[str, Callable[[Any, Layer], None]]]

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.notes: list[str] = []  # what the file does not express, see multiseg.topology.notes
        self.shapes = topology.shapes
        self.layers = topology.leading
        self.place = -1  # index of the layer that is being written
        self.readers: dict[str, list[Layer]] = {name: [] for name in self.shapes}
        for layer in self.layers:
            for name in layer.inputs:
                self.readers[name].append(layer)

    def write(self) -> None:
        """Write every layer. Raises one ModelError that names all layers that the framework cannot express."""
        problems = []
        for place, layer in enumerate(self.layers):
            self.place = place
            try:
                if layer.type not in VOCABULARY:
                    raise Refused(layer.reason or "is beyond the layers that can be written in another framework")
                if layer.type not in self.rules:
                    raise Refused(f"{self.title} has no such layer")
                self.rules[layer.type](self, layer)
            except Refused as error:
                problems.append(f"layer {layer.name!r} ({layer.type}): {error}")
        if problems:
            raise ModelError(f"{self.topology.source}: {self.title} cannot express it exactly; {'; '.join(problems)}")

    def input_shape(self, layer: Layer) -> Shape:
        """Return the shape of a layer's first input."""
        return self.shapes[layer.inputs[0]]

    def passes_on(self, value: str) -> bool:
        """Return whether only the next layer, or only the network's output, reads a value, so that it needs no name."""
        following = self.layers[self.place + 1 : self.place + 2]
        readers, last = self.readers[value], value in self.topology.outputs
        return (
            (last and not readers and len(self.topology.outputs) == 1)
            if not following
            else not last and {id(each) for each in readers} == {id(following[0])}
        )

    def ends(self, inputs: Mapping[str, str], outputs: Sequence[str]) -> list[str]:
        """Return sentences that name several inputs and outputs in their order, none for a network with one of each.

        ``inputs`` are the names in the file of the values of the inputs, ``outputs`` those of the outputs.
        """
        topology = self.topology
        if topology.trains:
            return []
        named = {
            "Inputs": [(inputs[name], shape) for name, shape in topology.inputs.items()],
            "Outputs": [(name, self.shapes[value]) for name, value in zip(outputs, topology.outputs, strict=True)],
        }
        return [
            f"{what}: {', '.join(f'{name} ' + 'x'.join(map(str, shape)) for name, shape in each)}."
            for what, each in named.items()
        ]

    @property
    def size(self) -> str:
        """Shape of the images as in 3x64x64."""
        return "x".join(map(str, self.topology.input_shape))

    @property
    def only(self) -> str:
        """Comment for lines that are right for images of this size only."""
        return f"# {ONLY} {self.size} only"


def parameter(layer: Layer, key: str) -> Any:
    """Return a parameter of a layer of the vocabulary, or its default."""
    return layer.parameters[key] if key in layer.parameters else VOCABULARY[layer.type].parameters[key]


def statistics(layer: Layer) -> tuple[str, str]:
    """Return which statistics a BatchNormalization uses in training and in prediction: ``batch`` or ``stored``.

    Raises Refused for stored ones in training and the batch's in prediction, which no framework has.
    """
    training, prediction = (parameter(layer, f"{state}_statistics") for state in ("training", "prediction"))
    if (training, prediction) == ("stored", "batch"):
        raise Refused("uses stored statistics in training and the batch's in prediction")
    return training, prediction


def axis(layer: Layer, shape: Shape, index: int | None = None) -> int:
    """Return a layer's axis (or ``index``), counted from 0 with the batch."""
    number: int = parameter(layer, "axis") if index is None else index
    return number if number >= 0 else number + len(shape) + 1


def factors(layer: Layer) -> list[float]:
    """Return the factor of each input of a Sum, an Add or a Sub."""
    return list(sum_factors(layer, len(layer.inputs)))


def slices(layer: Layer, shape: Shape) -> dict[int, tuple[int, int | None]]:
    """Return start and end of a Slice by axis, for each axis that it cuts; end None: to the end. Axes count the batch."""
    bounds: dict[int, tuple[int, int | None]] = {}
    for number, start, end in zip(*(layer.parameters[key] for key in ("axes", "starts", "ends")), strict=True):
        axis_index = axis(layer, shape, number)
        size = shape[axis_index - 1]
        first, last, _ = slice(start, end).indices(size)
        if (first, last) != (0, size):
            # as in the file, which may be right for other sizes too
            bounds[axis_index] = (start if abs(start) <= size else first, None if last == size else end)
    return bounds


def deconvolution_pads(layer: Layer) -> tuple[list[int], list[int]]:
    """Return pads [top, left, bottom, right] and output padding of a ConvTranspose; with SAME they do not depend on the size."""
    if layer.parameters.get("auto_pad") != "SAME_UPPER":
        return list(layer.parameters.get("pads", (0, 0, 0, 0))), list(parameter(layer, "output_padding"))
    sizes = zip(
        layer.parameters["kernel_shape"], parameter(layer, "dilations"), parameter(layer, "strides"), strict=True
    )
    overlaps = [(k - 1) * d + 1 - s for k, d, s in sizes]  # by how much windows overlap
    before = [max(overlap, 0) // 2 for overlap in overlaps]
    after = [max(overlap, 0) - b for overlap, b in zip(overlaps, before, strict=True)]
    return [*before, *after], [max(-overlap, 0) for overlap in overlaps]


def number(value: float) -> str:
    """Return the shortest decimal equal to this number in float32, e.g. 1e-05 for 9.99999974e-06; whole numbers as 2.0."""
    packed = struct.pack("f", value) if abs(value) < 3.4e38 else None
    if packed is None:
        return repr(float(value))
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    return repr(float(next(text for text in texts if struct.pack("f", float(text)) == packed)))


def finite(limit: float | None) -> float | None:
    """Return a Clip's limit, None if it has no effect: infinity, or the largest float32."""
    return None if limit is None or math.isinf(limit) or abs(limit) > 3.4e38 else float(limit)


def identifiers(names: Iterable[str], reserved: Iterable[str]) -> dict[str, str]:
    """Return a Python identifier for each name: invalid characters become ``_``, duplicates are numbered."""

    def identifier(name: str) -> str:
        valid = re.sub(r"\W", "_", name, flags=re.ASCII)
        return f"layer_{valid}" if not valid[:1].isalpha() else valid

    blocked = {*reserved, *keyword.kwlist}
    return distinct(names, lambda name: f"{identifier(name)}_" if identifier(name) in blocked else identifier(name))


def distinct(names: Iterable[str], spell: Callable[[str], str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Return ``spell(name)`` for each name, with _2, _3 and so on if another name, or a reserved one, is spelled the same."""
    spelled: dict[str, str] = {}
    taken = set(reserved)
    for name in dict.fromkeys(names):
        spelled[name] = unused(spell(name), taken)
        taken.add(spelled[name])
    return spelled


def pair(values: Sequence[int]) -> str:
    """Return height and width as Python source: one number if they are equal."""
    high, wide = values
    return str(high) if high == wide else f"({high}, {wide})"
