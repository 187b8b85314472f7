"""A picture of boxes, texts and arrows, as SVG and as PNG."""

from __future__ import annotations

import io
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
    """A line through points that starts and ends vertically, curved if not straight; ``head``: with an arrowhead."""

    points: tuple[Point, ...]
    colour: str
    head: bool = True


@dataclass(frozen=True)
class Group:
    """Shapes with a tooltip."""

    title: str
    shapes: tuple[Box | Text | Arrow, ...]


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
            lines.append(f"<g><title>{escape(group.title)}</title>")
            lines += [_svg(shape) for shape in group.shapes]
            lines.append("</g>")
        return "\n".join([*lines, "</svg>\n"])

    def to_png(self) -> bytes:
        """Return the picture as a PNG file, twice as large, with a transparent background. Needs no installed fonts."""
        zoom = SCALE * SMOOTH
        image = Image.new("RGBA", (round(self.width * zoom), round(self.height * zoom)), (255, 255, 255, 0))
        draw = ImageDraw.Draw(image)
        for group in self.groups:
            for shape in group.shapes:
                _paint(draw, shape, zoom)
        buffer = io.BytesIO()
        image.reduce(SMOOTH).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()


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
    drawn = f'<path d="{path}" fill="none" stroke="{shape.colour}" stroke-width="1.5"/>'
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


def _paint(draw: Any, shape: Box | Text | Arrow, zoom: float) -> None:
    if isinstance(shape, Box):
        corners = [shape.x * zoom, shape.y * zoom, (shape.x + shape.width) * zoom, (shape.y + shape.height) * zoom]
        draw.rounded_rectangle(corners, shape.radius * zoom, shape.fill, shape.line, round(zoom) if shape.line else 0)
    elif isinstance(shape, Text):
        stroke = shape.size * zoom * 0.03 if shape.bold else 0  # Pillow includes only one weight of its font
        at = (shape.x * zoom, shape.y * zoom)
        draw.text(at, shape.text, shape.colour, _font(shape.size * zoom), anchor="mm", stroke_width=stroke)
    else:
        for start, end in _pieces(shape):
            draw.line([(x * zoom, y * zoom) for x, y in _curve(start, end)], shape.colour, round(1.5 * zoom), "curve")
        if shape.head:
            draw.polygon([(x * zoom, y * zoom) for x, y in _head(shape)], shape.colour)


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
