"""Draw a topology as .svg, .png or .html: boxes from top to bottom, with the shapes that pass between them."""

from __future__ import annotations

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


def picture(topology: Description) -> Picture:
    """Return the topology as a picture."""
    boxes = blocks(topology)
    sizes = {block: _size(topology, block) for block in boxes}
    placed = place(boxes, {block: block.reads for block in boxes}, sizes)
    groups = []
    for (source, _), points in placed.lines.items():
        title = f"{_name(topology, source)}: {' and '.join(map(words.size, source.shapes))}"
        groups.append(Group(title, (Arrow(tuple(_inside(point) for point in points), GREY),)))
    groups += [_box(topology, block, _inside(placed.places[block]), sizes[block]) for block in boxes]
    return Picture(placed.width + 2 * MARGIN, placed.height + 2 * MARGIN, groups)


def _inside(point: Point) -> Point:
    return point[0] + MARGIN, point[1] + MARGIN


def _name(topology: Description, block: Block) -> str:
    return block.layers[-1].name if block.layers else block.input


def _heads(topology: Description, block: Block) -> tuple[str, list[str], list[str]]:
    """Return a block's title, the lines below it, and its strips."""
    if not block.layers:
        return block.input, ["input"], []
    head, *strips = block.layers
    return head.name, _lines(head), [_strip(layer) for layer in strips]


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


def _shape(block: Block) -> str:
    return " | ".join(map(words.size, block.shapes))


def _size(topology: Description, block: Block) -> tuple[float, float]:
    """Return width and height of a block, including the shape label below it."""
    title, lines, strips = _heads(topology, block)
    texts = [text_width(text, BODY) for text in (*lines, *strips, _shape(block))]
    width = max(text_width(title, TITLE, bold=True), *texts) + 24
    return width, 10 + LINE * (1 + len(lines)) + STRIP * len(strips) + 10 + PILL


def _box(topology: Description, block: Block, position: Point, size: tuple[float, float]) -> Group:
    title, lines, strips = _heads(topology, block)
    (x, y), (width, height) = position, size
    left, bottom = x - width / 2, y + height - PILL - 10
    fill = _fill(block.layers[0]) if block.layers else PAPER
    top_height = bottom - y - STRIP * len(strips)
    shapes: list[Box | Text | Arrow] = [Box(left, y, width, bottom - y, STRIP_FILL if strips else fill)]
    if strips:  # square corners at the boundary to the strips
        shapes += [Box(left, y, width, top_height, fill), Box(left, y + top_height - 8, width, 8, fill, radius=0)]
    shapes.append(Box(left, y, width, bottom - y, None, GREY))
    shapes.append(Text(x, y + 5 + LINE / 2, title, TITLE, INK, bold=True))
    shapes += [Text(x, y + 5 + LINE * (number + 1.5), line, BODY, INK) for number, line in enumerate(lines)]
    shapes += [
        Text(x, y + top_height + STRIP * (number + 0.5), strip, BODY, INK) for number, strip in enumerate(strips)
    ]
    label_width = text_width(_shape(block), BODY) + 14
    shapes.append(Arrow(((x, bottom), (x, bottom + 10)), GREY, head=False))
    shapes.append(Box(x - label_width / 2, bottom + 10, label_width, PILL, PAPER, GREY, PILL / 2))
    shapes.append(Text(x, bottom + 10 + PILL / 2, _shape(block), BODY, INK))
    return Group(_title(topology, block), tuple(shapes))


def _fill(layer: Layer) -> str:
    row = VOCABULARY.get(layer.type)
    return FILLS.get(row.category, OTHER_FILL) if row else OTHER_FILL


def _title(topology: Description, block: Block) -> str:
    """Return the tooltip of a box: all facts about its layers."""
    if not block.layers:
        return f"{block.input}: input {words.size(block.shapes[0])}"
    return "\n".join(map(_facts, block.layers))


def _facts(layer: Layer) -> str:
    row = summary.row(layer)
    counts = {"weights": row.weights, "multiply-adds": row.multiply_adds}
    facts = [f"{row.name}: {row.type} {row.parameters}".strip(), row.output]
    return ", ".join(facts + [f"{count:,} {name}" for name, count in counts.items() if count])
