"""Draw a topology as .svg, .png or .html: boxes from top to bottom, with the shapes that pass between them."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from multiseg._version import __version__
from multiseg.errors import SettingsError, setting
from multiseg.files import write_bytes, write_text
from multiseg.topology import summary, words
from multiseg.topology.blocks import Block, blocks
from multiseg.topology.description import Description
from multiseg.topology.layer import Layer
from multiseg.topology.picture import Arrow, Box, Group, Picture, Point, Text, text_width
from multiseg.topology.placement import place
from multiseg.topology.vocabulary import VOCABULARY

KINDS = (".svg", ".png", ".html")
MARGIN = 12.0
TITLE, BODY = 13.0, 11.0  # sizes of text
LINE, STRIP, PILL = 16.0, 18.0, 17.0  # heights of a line of text, of an activation strip, of a shape label
LONGEST = 44  # maximum number of characters of a line of parameters

# All texts are dark, in filled shapes; all lines have a grey that is visible on white and on black.
INK, GREY, PAPER = "#1b1f24", "#7d838c", "#f3f4f6"
STRIP_FILL = "#fff3c4"
FILLS = {  # by the category of the vocabulary
    "convolution": "#b9d5f6",
    "upsampling": "#d9c8f5",
    "pooling": "#bfe5c6",
    "joining": "#f8d1ae",
    "activation": STRIP_FILL,
    "softmax": STRIP_FILL,
    "normalisation": STRIP_FILL,
}
OTHER_FILL = "#dfe3e8"


@dataclass(frozen=True)
class Mark:
    """How a box differs from an ordinary one: its colour, a ``sign`` before its title, ``lines`` below its parameters.

    ``target``: address that it links to; ``shape``: the text on its output.
    """

    fill: str = PAPER
    sign: str = ""
    lines: Sequence[str] = ()
    target: str = ""
    shape: str = ""


@dataclass(frozen=True)
class Marks:
    """The marks of a drawing: ``box`` and ``line`` return the mark of a box, and colour and dashes of a line to its reader.

    Layers whose first output is in ``apart`` have a box of their own.
    """

    box: Callable[[Block], Mark | None]
    line: Callable[[Block, Block], tuple[str, bool]] = lambda source, reader: (GREY, False)
    apart: Container[str] = ()


UNMARKED = Marks(lambda block: None)


def check_name(path: Path) -> None:
    """Raise SettingsError if a file's name does not end in .svg, .png or .html."""
    if path.suffix.lower() not in KINDS:
        raise SettingsError(f"{path}: a topology is drawn as .svg, .png or .html; use one of these extensions")


def write(topology: Description, path: str | Path, scale: float | None = None) -> Path:
    """Draw a topology into a .svg, .png or .html file and return its path; ``scale``: pixels of a .png for one unit.

    Raises SettingsError for another extension, and for a scale that makes a .png too large.
    """
    path = Path(path)
    check_name(path)
    if scale is not None and not 0.05 <= scale <= 8:
        raise SettingsError(f"{setting('scale', scale)}: must be a number from 0.05 to 8")
    kind = path.suffix.lower()
    if kind == ".png":
        write_bytes(path, picture(topology).to_png(scale))
    else:
        write_text(path, to_html(topology) if kind == ".html" else picture(topology).to_svg())
    return path


def to_html(topology: Description) -> str:
    """Return a self-contained HTML page with the picture and a table of the layers."""
    import jinja2

    text = files("multiseg.topology").joinpath("page.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    return template.render(
        topology=topology,
        svg=picture(topology).to_svg(),
        headings=summary.HEADINGS,
        rows=map(summary.row, topology.layers),
        size=words.size,
        quantity=words.quantity,
        version=__version__,
    )


def picture(topology: Description, marks: Marks = UNMARKED) -> Picture:
    """Return the topology as a picture, with ``marks`` on boxes and lines."""
    boxes = [_Box(block, marks.box(block)) for block in blocks(topology, marks.apart)]
    of = {box.block: box for box in boxes}
    placed = place(boxes, {box: [of[read] for read in box.block.reads] for box in boxes}, {b: b.size for b in boxes})
    groups = []
    for (source, reader), points in placed.lines.items():
        title = f"{source.name}: {' and '.join(map(words.size, source.block.shapes))}"
        colour, dashed = marks.line(source.block, reader.block)
        arrow = Arrow(tuple(_inside(point) for point in points), colour, dashed=dashed)
        groups.append(Group(title, (arrow,)))
    groups += [box.group(_inside(placed.places[box])) for box in boxes]
    return Picture(placed.width + 2 * MARGIN, placed.height + 2 * MARGIN, groups)


def _inside(point: Point) -> Point:
    return point[0] + MARGIN, point[1] + MARGIN


class _Box:
    """A block with its texts: a title, the lines below it, its strips, and the shape of its output."""

    def __init__(self, block: Block, mark: Mark | None) -> None:
        self.block, self.mark = block, mark or Mark("")
        self.name = block.layers[-1].name if block.layers else block.input
        if block.layers:
            head, *strips = block.layers
            self.title, self.lines, self.strips = head.name, _lines(head), [_strip(layer) for layer in strips]
        else:
            self.title, self.lines, self.strips = block.input, ["input"], []
        self.title = f"{self.mark.sign} {self.title}" if self.mark.sign else self.title
        self.lines += self.mark.lines
        self.shape = self.mark.shape or " | ".join(map(words.size, block.shapes))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, including the shape label below it."""
        texts = [text_width(text, BODY) for text in (*self.lines, *self.strips, self.shape)]
        width = max(text_width(self.title, TITLE, bold=True), *texts) + 24
        return width, 10 + LINE * (1 + len(self.lines)) + STRIP * len(self.strips) + 10 + PILL

    def group(self, position: Point) -> Group:
        """Return the shapes of the box at a position: the centre (x) and top (y)."""
        (x, y), (width, height) = position, self.size
        left, bottom = x - width / 2, y + height - PILL - 10
        fill = self.mark.fill or (_fill(self.block.layers[0]) if self.block.layers else PAPER)
        strip_fill = self.mark.fill or STRIP_FILL
        top_height = bottom - y - STRIP * len(self.strips)
        shapes: list[Box | Text | Arrow] = [Box(left, y, width, bottom - y, strip_fill if self.strips else fill)]
        if self.strips:  # square corners at the boundary to the strips
            shapes += [Box(left, y, width, top_height, fill), Box(left, y + top_height - 8, width, 8, fill, radius=0)]
        shapes.append(Box(left, y, width, bottom - y, None, GREY))
        shapes.append(Text(x, y + 5 + LINE / 2, self.title, TITLE, INK, bold=True))
        shapes += [Text(x, y + 5 + LINE * (row + 1.5), line, BODY, INK) for row, line in enumerate(self.lines)]
        shapes += [
            Text(x, y + top_height + STRIP * (row + 0.5), strip, BODY, INK) for row, strip in enumerate(self.strips)
        ]
        label_width = text_width(self.shape, BODY) + 14
        shapes.append(Arrow(((x, bottom), (x, bottom + 10)), GREY, head=False))
        shapes.append(Box(x - label_width / 2, bottom + 10, label_width, PILL, PAPER, GREY, PILL / 2))
        shapes.append(Text(x, bottom + 10 + PILL / 2, self.shape, BODY, INK))
        return Group(self._tooltip(), tuple(shapes), self.mark.target)

    def _tooltip(self) -> str:
        """Return all facts about the layers."""
        if not self.block.layers:
            return f"{self.block.input}: input {words.size(self.block.shapes[0])}"
        return "\n".join([*map(_facts, self.block.layers), *self.mark.lines])


def _lines(layer: Layer) -> list[str]:
    """Return type and parameters of a layer in lines of about LONGEST characters."""
    lines = [layer.type]
    for number, part in enumerate(words.parameters(layer).split(", ")):
        if part and len(lines[-1]) + len(part) < LONGEST:
            lines[-1] += f"{', ' if number else ' '}{part}"
        elif part:
            lines.append(part)
    return lines


def _strip(layer: Layer) -> str:
    parameters = words.parameters(layer)
    return f"{layer.name}: {layer.type}{' ' + parameters if parameters and len(parameters) < LONGEST / 2 else ''}"


def _fill(layer: Layer) -> str:
    row = VOCABULARY.get(layer.type)
    return FILLS.get(row.category, OTHER_FILL) if row else OTHER_FILL


def _facts(layer: Layer) -> str:
    row = summary.row(layer)
    counts = {"weights": row.weights, "multiply-adds": row.multiply_adds}
    facts = [f"{row.name}: {row.type} {row.parameters}".strip(), row.output]
    return ", ".join(facts + [f"{count:,} {name}" for name, count in counts.items() if count])
