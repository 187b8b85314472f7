"""Cut the text of a prototxt to the layers that the named outputs need, before it is parsed.

Layers after the outputs, of object detectors and of unknown forks, may have fields that multiseg does not know, which then do
not matter. Removed layers become blank, so that lines and columns in messages stay right.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

from multiseg.files import read_text
from multiseg.topology.names import unknown_output

TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}<>:]|[\w.+-]+""")
LISTED = ("name", "type", "bottom", "top")
LABELS = (
    "Slice",
    "Power",
    "Eltwise",
    "Reshape",
    "Flatten",
    "Split",
    "Interp",
    "Crop",
    "Silence",
)  # between labels and loss
DATA_FIELD = "annotated_data_param"  # of SSD's layer AnnotatedData, in whose place multiseg's dataset stands


@dataclass
class Block:
    """A layer in the text, from ``start`` to ``end``; ``spans`` are the places of its messages by the names of their fields."""

    start: int
    end: int = 0
    name: str = ""
    type: str = ""
    bottoms: list[str] = field(default_factory=list)
    tops: list[str] = field(default_factory=list)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def compares(self) -> bool:
        """Whether it is a loss or a metric, in the current or the older syntax."""
        return bool(self.bottoms) and self.type.lower().endswith(("loss", "accuracy"))


def blocks(text: str) -> list[Block]:
    """Return the layers in the text of a prototxt, in order."""
    return list(_blocks(text))


def _blocks(text: str) -> Iterator[Block]:
    depth, block, key, begun, valued = 0, None, "", 0, False
    for match in TOKEN.finditer(text):
        token = match[0]
        if token.startswith("#"):
            continue
        if token == ":":
            valued = True
            continue
        if token in "{<":
            depth += 1
        elif token in "}>":
            depth -= 1
            if block is not None and depth == 1:
                block.spans[key] = begun, match.end()
            if block is not None and depth <= 0:
                block.end = match.end()
                yield block
                block = None
        elif depth <= 0:
            block = Block(match.start()) if token in ("layer", "layers") else None
        elif depth == 1 and block is not None:
            if valued and key in LISTED:
                value = token[1:-1] if token[0] in "\"'" else token
                if key in ("name", "type"):
                    setattr(block, key, value)
                else:
                    (block.bottoms if key == "bottom" else block.tops).append(value)
                key = ""
            else:
                key, begun = token, match.start()
        valued = False


def cut(text: str, source: str, names: Sequence[str]) -> str:
    """Return the text with the layers that the outputs ``names`` need, their data layers, and the losses that compare them.

    A name is that of a layer, or of a blob, or begins with that of a layer. Raises ModelError, with similar names, for others.
    """
    layers = blocks(text)
    writers: dict[str, list[int]] = {}
    for number, layer in enumerate(layers):
        for top in dict.fromkeys(layer.tops):
            writers.setdefault(top, []).append(number)
    needed: set[int] = set()
    for name in names:
        needed |= _before(layers, writers, _named(layers, writers, source, name))
    computed = {top for number in needed if layers[number].bottoms for top in layers[number].tops}
    for number, layer in enumerate(layers):
        if layer.compares and layer.bottoms[0] in computed:
            more = _before(layers, writers, [number]) - needed - {number}
            if all(not layers[each].bottoms or layers[each].type in LABELS for each in more):
                needed |= {*more, number}
    removed = [(layer.start, layer.end) for number, layer in enumerate(layers) if number not in needed]
    removed += [
        layer.spans[DATA_FIELD] for layer in layers if layer.type == "AnnotatedData" and DATA_FIELD in layer.spans
    ]
    return _blanked(text, sorted(removed))


def _named(layers: Sequence[Block], writers: dict[str, list[int]], source: str, name: str) -> list[int]:
    """Return the numbers of the layers that a name stands for: in different states several may have it."""
    found = [number for number, layer in enumerate(layers) if layer.name == name] or writers.get(name, [])
    if found:
        return found
    # one layer of Caffe may become several in a description, conv1_reshape, and have several outputs, pool1:1
    begun = [layer.name for layer in layers if layer.name and name.startswith((f"{layer.name}_", f"{layer.name}:"))]
    if not begun:
        raise unknown_output(source, name, [word for layer in layers for word in (layer.name, *layer.tops)])
    longest = max(begun, key=len)
    return [number for number, layer in enumerate(layers) if layer.name == longest]


def _before(layers: Sequence[Block], writers: dict[str, list[int]], ends: Sequence[int]) -> set[int]:
    """Return the numbers of layers and of those before them that they need."""
    needed, waiting = set(ends), list(ends)
    while waiting:
        number = waiting.pop()
        for bottom in layers[number].bottoms:
            for other in writers.get(bottom, []):
                if other < number and other not in needed:
                    needed.add(other)
                    waiting.append(other)
    return needed


def _blanked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    parts, place = [], 0
    for start, end in spans:
        parts += [text[place:start], re.sub(r"[^\n]", " ", text[start:end])]
        place = max(end, place)
    return "".join([*parts, text[place:]])


def layer_at(text: str, line: int, column: int) -> Block | None:
    """Return the layer at a line and a column, counted from 1; None if there is none."""
    place = sum(len(each) for each in text.splitlines(keepends=True)[: line - 1]) + column - 1
    return next((layer for layer in blocks(text) if layer.start <= place < layer.end), None)


def example_before(text: str, fields: Container[str]) -> str | None:
    """Return the name of a layer that the first one with one of these messages reads, to cut the network at.

    It is the blob's if the layer has several, and None if there is no such layer.
    """
    layers = blocks(text)
    for number, layer in enumerate(layers):
        if any(name in fields for name in layer.spans):
            for bottom in layer.bottoms:
                for other in reversed(layers[:number]):
                    if bottom in other.tops and other.bottoms and other.name:
                        return other.name if len(other.tops) == 1 else bottom
    return None


def remarks(path: str) -> dict[str, list[str]]:
    """Return a sentence for each layer of a file whose blob another layer overwrites, for a network that is cut there."""
    sentences: dict[str, list[str]] = {}
    writers: dict[str, str] = {}  # blob -> the last layer that writes it
    for layer in blocks(read_text(path)):
        for top in layer.tops:
            if top in layer.bottoms and top in writers:
                sentences[writers[top]] = [
                    f"the output {writers[top]!r} is that of this layer, before layer {layer.name!r} overwrites its blob "
                    f"{top!r}; for the blob after it, name {layer.name!r}"
                ]
            writers[top] = layer.name
    return sentences
