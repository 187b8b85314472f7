"""What is common to writing a described network as some framework's source: order, names, numbers, refusals."""

from __future__ import annotations

import keyword
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from multiseg.errors import ModelError
from multiseg.topology.layer import Layer, Shape
from multiseg.topology.topology import Topology
from multiseg.topology.vocabulary import VOCABULARY, sum_factors

# what a file says beside what is right for no other size of images
ONLY = "right for images of"


class Refused(ValueError):
    """A framework cannot express a layer exactly; the message says why, without the layer's name."""


class Writer:
    """Writes the layers that lead to a topology's one output. A subclass has a method for each type, in ``rules``."""

    title: ClassVar[str]  # the framework's, for messages
    rules: ClassVar[Mapping[str, Callable[[Any, Layer], None]]]

    def __init__(self, topology: Topology) -> None:
        if len(topology.outputs) != 1:
            raise ModelError(
                f"{topology.source}: has {len(topology.outputs)} outputs ({', '.join(topology.outputs)}); a network file that "
                "is trained has one"
            )
        self.topology = topology
        self.shapes = topology.shapes
        self.layers = topology.leading
        self.place = -1  # of the layer that is being written
        self.readers: dict[str, list[Layer]] = {name: [] for name in self.shapes}
        for layer in self.layers:
            for name in layer.inputs:
                self.readers[name].append(layer)

    def write(self) -> None:
        """Write every layer. Raises one ModelError that names each layer that is refused."""
        problems = []
        for place, layer in enumerate(self.layers):
            self.place = place
            try:
                if layer.type not in self.rules:
                    raise Refused("it has no such layer")
                self.rules[layer.type](self, layer)
            except Refused as error:
                problems.append(f"layer {layer.name!r} ({layer.type}): {error}")
        if problems:
            raise ModelError(f"{self.topology.source}: {self.title} cannot express it exactly; {'; '.join(problems)}")

    def taken(self, layer: Layer) -> Shape:
        """Shape of a layer's first input."""
        return self.shapes[layer.inputs[0]]

    def passes_on(self, value: str) -> bool:
        """Whether only the next layer, or nothing but the end, takes a value: it needs no name of its own then."""
        following = self.layers[self.place + 1 : self.place + 2]
        readers, last = self.readers[value], value in self.topology.outputs
        return (
            (last and not readers)
            if not following
            else not last and {id(each) for each in readers} == {id(following[0])}
        )

    @property
    def size(self) -> str:
        """The images' size as in 3x64x64."""
        return "x".join(map(str, self.topology.input_shape))

    @property
    def only(self) -> str:
        """A comment on what is right for images of this size only."""
        return f"# {ONLY} {self.size} only"


def said(layer: Layer, key: str) -> Any:
    """Return a parameter of a layer of the vocabulary, or its default."""
    return layer.parameters[key] if key in layer.parameters else VOCABULARY[layer.type].parameters[key]


def axis(layer: Layer, shape: Shape, index: int | None = None) -> int:
    """A layer's axis (or another ``index``) counted with the batch, from 0."""
    found: int = said(layer, "axis") if index is None else index
    return found if found >= 0 else found + len(shape) + 1


def factors(layer: Layer) -> list[float]:
    """Return the factor of each input of a Sum, an Add or a Sub."""
    return list(sum_factors(layer, len(layer.inputs)))


def slices(layer: Layer, shape: Shape) -> dict[int, tuple[int, int | None]]:
    """Start and end of what a Slice takes along each axis that it cuts; None is the end. Axes are counted with the batch."""
    cut: dict[int, tuple[int, int | None]] = {}
    for each, start, end in zip(*(layer.parameters[key] for key in ("axes", "starts", "ends")), strict=True):
        place = axis(layer, shape, each)
        size = shape[place - 1]
        first, last, _ = slice(start, end).indices(size)
        if (first, last) != (0, size):
            # as it was said, which may hold for other sizes too
            cut[place] = (start if abs(start) <= size else first, None if last == size else end)
    return cut


def deconvolution_pads(layer: Layer) -> tuple[list[int], list[int]]:
    """A ConvTranspose's pads [top, left, bottom, right] and output padding; those of SAME do not depend on the size."""
    if layer.parameters.get("auto_pad") != "SAME_UPPER":
        return list(layer.parameters.get("pads", (0, 0, 0, 0))), list(said(layer, "output_padding"))
    sizes = zip(layer.parameters["kernel_shape"], said(layer, "dilations"), said(layer, "strides"), strict=True)
    over = [(k - 1) * d + 1 - s for k, d, s in sizes]  # what windows overlap
    before = [max(each, 0) // 2 for each in over]
    after = [max(each, 0) - b for each, b in zip(over, before, strict=True)]
    return [*before, *after], [max(-each, 0) for each in over]


def number(value: float) -> str:
    """The shortest decimal that is this float32, e.g. 1e-05 for 9.99999974e-06; whole numbers as 2.0."""
    packed = struct.pack("f", value) if abs(value) < 3.4e38 else None
    if packed is None:
        return repr(float(value))
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    return repr(float(next(text for text in texts if struct.pack("f", float(text)) == packed)))


def finite(limit: float | None) -> float | None:
    """A Clip's limit, None where it limits nothing: infinity, or the largest float32 as files write it."""
    return None if limit is None or math.isinf(limit) or abs(limit) > 3.4e38 else float(limit)


def identifiers(names: Iterable[str], reserved: Iterable[str]) -> dict[str, str]:
    """A Python identifier for each name: as it is where it can be, else with ``_`` for what cannot; numbered where taken."""

    def identifier(name: str) -> str:
        found = re.sub(r"\W", "_", name, flags=re.ASCII)
        return f"layer_{found}" if not found[:1].isalpha() else found

    blocked = {*reserved, *keyword.kwlist}
    return distinct(names, lambda name: f"{identifier(name)}_" if identifier(name) in blocked else identifier(name))


def distinct(names: Iterable[str], spell: Callable[[str], str], reserved: Iterable[str] = ()) -> dict[str, str]:
    """Each name as ``spell`` has it, with _2, _3 and so on where another name, or a reserved one, comes to the same."""
    found: dict[str, str] = {}
    taken = set(reserved)
    for name in dict.fromkeys(names):
        base = spell(name)
        free, count = base, 1
        while free in taken:
            count += 1
            free = f"{base}_{count}"
        taken.add(free)
        found[name] = free
    return found


def pair(values: Sequence[int]) -> str:
    """Height and width as Python source: one number where they are equal."""
    high, wide = values
    return str(high) if high == wide else f"({high}, {wide})"
