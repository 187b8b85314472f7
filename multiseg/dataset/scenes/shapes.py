"""A scene for semantic segmentation: shapes of six classes on a textured background, with ignored borders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multiseg.dataset.label_tables import BORDER_COLOUR, default_colours
from multiseg.dataset.scenes.numbers import Floats, Numbers, any_seed

MINIMUM_SIZE = 16  # pixels of an image's side, so that a shape has some
BORDER = 255  # label of the pixels beside a border between objects, as in PASCAL VOC

# Whether a point is in a shape whose extent is about 1 in each direction from its centre.
_Inside = Callable[[Floats, Floats], NDArray[np.bool_]]


def _polygon(x: Floats, y: Floats, radii: tuple[float, ...], corners: int) -> NDArray[np.bool_]:
    """Return the points within a polygon of ``corners`` corners around the centre, whose distances alternate among ``radii``."""
    angles = [2 * math.pi * corner / corners for corner in range(corners + 1)]
    points = [
        (radii[corner % len(radii)] * math.sin(angle), -radii[corner % len(radii)] * math.cos(angle))
        for corner, angle in enumerate(angles)
    ]
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in pairwise(points):  # crossings of a ray to the right
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / ((y1 - y0) or 1))
    return inside


_SHAPES: dict[str, _Inside] = {
    "disc": lambda x, y: x**2 + y**2 < 0.9,
    "ring": lambda x, y: (x**2 + y**2 < 1) & (x**2 + y**2 > 0.25),
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.8,
    "cross": lambda x, y: (np.minimum(abs(x), abs(y)) < 0.33) & (np.maximum(abs(x), abs(y)) < 1),
    "triangle": lambda x, y: _polygon(x, y, (1.15,), 3),
    "star": lambda x, y: _polygon(x, y, (1.15, 0.5), 10),
}
CLASSES = ("background", *_SHAPES)
# A colour that is usual for each shape; it varies, so that those of different shapes come close.
_USUAL = dict(
    zip(
        _SHAPES,
        ((0.8, 0.2, 0.2), (0.2, 0.3, 0.8), (0.2, 0.7, 0.3), (0.85, 0.75, 0.2), (0.6, 0.2, 0.75), (0.2, 0.75, 0.8)),
        strict=True,
    )
)
_VARIATION = 0.15


def pairs(size: int, seed: int | None) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Yield scenes: RGB images with two to five shapes that overlap, and palette masks of the classes with borders of 255."""
    start = any_seed() if seed is None else seed
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(CLASSES)] = default_colours(len(CLASSES))
    palette[BORDER] = BORDER_COLOUR
    for number in count():
        pixels, labels = _scene(Numbers(start, number), size)
        mask = Image.fromarray(labels)
        mask.putpalette(palette.tobytes())
        yield Image.fromarray(pixels), mask


def _scene(numbers: Numbers, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image (H, W, 3) and its labels (H, W)."""
    rows, columns = (axis.astype(np.float64) for axis in np.mgrid[:size, :size])
    image = _texture(numbers, rows, columns, numbers.uniform(0.3, 0.7) + 0.2 * (numbers.array(3) - 0.5))
    labels = np.zeros((size, size), np.uint8)
    objects = np.zeros((size, size), np.int64)
    for number in range(1, 3 + numbers.below(4)):
        label = 1 + numbers.below(len(_SHAPES))
        radius = numbers.uniform(0.14, 0.24) * size
        row, column = numbers.uniform(0.1, 0.9) * size, numbers.uniform(0.1, 0.9) * size
        angle = numbers.uniform(0, 2 * math.pi)
        x = ((columns - column) * math.cos(angle) + (rows - row) * math.sin(angle)) / radius
        y = ((rows - row) * math.cos(angle) - (columns - column) * math.sin(angle)) / radius
        inside = _SHAPES[CLASSES[label]](x, y)
        colour = np.array(_USUAL[CLASSES[label]]) + _VARIATION * (2 * numbers.array(3) - 1)
        image[inside] = _texture(numbers, rows, columns, colour)[inside]
        labels[inside], objects[inside] = label, number
    shade = 0.8 + 0.4 * numbers.clouds(size, 2)
    image = image * shade[..., np.newaxis] + 0.03 * numbers.noise(size, size, 3)
    labels[_beside_borders(objects)] = BORDER
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), labels


def _texture(numbers: Numbers, rows: Floats, columns: Floats, colour: Floats) -> Floats:
    """Return an image (H, W, 3) of a colour with a random pattern: stripes, checks, clouds or none."""
    size, kind = len(rows), numbers.below(4)
    angle, period = numbers.uniform(0, math.pi), numbers.uniform(3, 8)
    along = (columns * math.cos(angle) + rows * math.sin(angle)) * (2 * math.pi / period)
    across = (rows * math.cos(angle) - columns * math.sin(angle)) * (2 * math.pi / period)
    patterns = (np.sin(along), np.sin(along) * np.sin(across), 2 * numbers.clouds(size, 8) - 1, np.zeros((size, size)))
    change = 0.12 * (numbers.array(3) * 2 - 1)
    return colour + patterns[kind][..., np.newaxis] * change


def _beside_borders(objects: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pixels have a neighbour, of eight, that belongs to another object."""
    padded = np.pad(objects, 1, mode="edge")
    height, width = objects.shape
    result = np.zeros(objects.shape, bool)
    for down in range(3):
        for right in range(3):
            result |= padded[down : down + height, right : right + width] != objects
    return result
