"""A picture of boxes, texts and arrows, as SVG and as PNG."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]
FONTS = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
SCALE = 2  # pixels of a PNG for one unit
PIXELS = 1 << 26  # of a PNG whose scale is not specified
ROWS = 256  # pixels of a PNG that are drawn at once
SMOOTH = 3  # oversampling factor, as Pillow does not antialias
STEPS = 16  # straight segments of a curve


@dataclass(frozen=True)
class Box:
    """A rectangle with round corners."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None
    line: str | None = None
    radius: float = 6.0


@dataclass(frozen=True)
class Text:
    """One line of text, centred at x; y is the middle of its height."""

    x: float
    y: float
    text: str
    size: float
    colour: str
    bold: bool = False


@dataclass(frozen=True)
class Arrow:
    """A line through points that starts and ends vertically, curved if not straight; ``head``: with an arrowhead.

    ``dashed`` applies to SVG.
    """

    points: tuple[Point, ...]
    colour: str
    head: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Group:
    """Shapes with a tooltip. In SVG they are a link if there is a ``target``, an address within the page."""

    title: str
    shapes: tuple[Box | Text | Arrow, ...]
    target: str = ""


@dataclass(frozen=True)
class Picture:
    """Groups, drawn in order on a transparent background."""

    width: float
    height: float
    groups: list[Group] = field(default_factory=list)

    def to_svg(self) -> str:
        """Return the picture as an SVG document with selectable text."""
        size = f'width="{self.width:g}" height="{self.height:g}" viewBox="0 0 {self.width:g} {self.height:g}"'
        lines = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FONTS}" text-anchor="middle">']
        for group in self.groups:
            lines += [f"<a href={quoteattr(group.target)}>"] if group.target else []
            lines.append(f"<g><title>{escape(group.title)}</title>")
            lines += [_svg(shape) for shape in group.shapes]
            lines.append("</g></a>" if group.target else "</g>")
        return "\n".join([*lines, "</svg>\n"])

    def to_png(self, scale: float | None = None) -> bytes:
        """Return the picture as a PNG file with ``scale`` pixels for one unit and a transparent background.

        By default SCALE, and less for a picture of more than PIXELS. It is drawn and compressed in strips: memory does not grow
        with its height. Needs no installed fonts.
        """
        scale = scale or min(SCALE, math.sqrt(PIXELS / (self.width * self.height)))
        width, height, zoom = max(round(self.width * scale), 1), max(round(self.height * scale), 1), scale * SMOOTH
        strips: list[list[Box | Text | Arrow]] = [[] for _ in range(0, height, ROWS)]
        for group in self.groups:
            for shape in group.shapes:
                top, bottom = ((y * scale) / ROWS for y in _extent(shape))
                for strip in strips[max(int(top), 0) : int(bottom) + 1]:
                    strip.append(shape)
        packer, data = zlib.compressobj(), bytearray()
        for number, shapes in enumerate(strips):
            rows = min(ROWS, height - number * ROWS)
            image = Image.new("RGBA", (width * SMOOTH, rows * SMOOTH), (255, 255, 255, 0))
            draw = ImageDraw.Draw(image)
            for shape in shapes:
                _paint(draw, shape, zoom, number * ROWS * SMOOTH)
            pixels = image.reduce(SMOOTH).tobytes()
            line = 4 * width
            for row in range(rows):
                data += packer.compress(b"\0" + pixels[row * line : (row + 1) * line])
        data += packer.flush()
        head = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)  # 8 bits, RGBA
        chunks = ((b"IHDR", head), (b"IDAT", bytes(data)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
            for name, content in chunks
        )


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Return an upper estimate of the width of a text in any usual font, slightly more than in Pillow's own."""
    return float(_font(size).getlength(text)) * (1.2 if bold else 1.12)


def _svg(shape: Box | Text | Arrow) -> str:
    if isinstance(shape, Box):
        line = f' stroke="{shape.line}"' if shape.line else ""
        corner = f' rx="{shape.radius:g}"' if shape.radius else ""
        return (
            f'<rect x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}"{corner}'
            f' fill="{shape.fill or "none"}"{line}/>'
        )
    if isinstance(shape, Text):
        weight = ' font-weight="bold"' if shape.bold else ""
        return (
            f'<text x="{shape.x:.1f}" y="{shape.y + 0.35 * shape.size:.1f}" font-size="{shape.size:g}"'
            f" fill={quoteattr(shape.colour)}{weight}>{escape(shape.text)}</text>"
        )
    path = f"M{shape.points[0][0]:.1f},{shape.points[0][1]:.1f}"
    for start, end in _pieces(shape):
        middle = (start[1] + end[1]) / 2
        curve = f"C{start[0]:.1f},{middle:.1f} {end[0]:.1f},{middle:.1f} {end[0]:.1f},{end[1]:.1f}"
        path += f"V{end[1]:.1f}" if start[0] == end[0] else curve
    dashes = ' stroke-dasharray="5 4"' if shape.dashed else ""
    drawn = f'<path d="{path}" fill="none" stroke="{shape.colour}" stroke-width="1.5"{dashes}/>'
    if shape.head:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in _head(shape))
        drawn += f'<polygon points="{corners}" fill="{shape.colour}"/>'
    return drawn


def _pieces(arrow: Arrow) -> list[tuple[Point, Point]]:
    x, y = arrow.points[-1]
    points = [*arrow.points[:-1], (x, y - 7 if arrow.head else y)]
    return list(pairwise(points))


def _head(arrow: Arrow) -> list[Point]:
    x, y = arrow.points[-1]
    return [(x, y), (x - 4, y - 8), (x + 4, y - 8)]


def _extent(shape: Box | Text | Arrow) -> tuple[float, float]:
    """Return the smallest and the largest y of a shape, with a margin for its lines."""
    if isinstance(shape, Box):
        return shape.y - 2, shape.y + shape.height + 2
    if isinstance(shape, Text):
        return shape.y - shape.size, shape.y + shape.size
    ys = [y for _, y in shape.points]
    return min(ys) - 10, max(ys) + 10


def _paint(draw: Any, shape: Box | Text | Arrow, zoom: float, above: float) -> None:
    """Paint a shape ``zoom`` times as large, without the ``above`` first rows."""
    if isinstance(shape, Box):
        top, bottom = shape.y * zoom - above, (shape.y + shape.height) * zoom - above
        corners = [shape.x * zoom, top, (shape.x + shape.width) * zoom, bottom]
        draw.rounded_rectangle(corners, shape.radius * zoom, shape.fill, shape.line, round(zoom) if shape.line else 0)
    elif isinstance(shape, Text):
        stroke = shape.size * zoom * 0.03 if shape.bold else 0  # Pillow includes only one weight of its font
        at = (shape.x * zoom, shape.y * zoom - above)
        draw.text(at, shape.text, shape.colour, _font(shape.size * zoom), anchor="mm", stroke_width=stroke)
    else:
        for start, end in _pieces(shape):
            points = [(x * zoom, y * zoom - above) for x, y in _curve(start, end)]
            draw.line(points, shape.colour, max(round(1.5 * zoom), 1), "curve")
        if shape.head:
            draw.polygon([(x * zoom, y * zoom - above) for x, y in _head(shape)], shape.colour)


def _curve(start: Point, end: Point) -> Sequence[Point]:
    """Return points of the cubic Bezier curve that starts and ends vertically."""
    middle = (start[1] + end[1]) / 2
    points = []
    for step in range(STEPS + 1):
        t = step / STEPS
        a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
        points.append(((a + b) * start[0] + (c + d) * end[0], a * start[1] + (b + c) * middle + d * end[1]))
    return points


@cache
def _font(size: float) -> Any:
    return ImageFont.load_default(size)
