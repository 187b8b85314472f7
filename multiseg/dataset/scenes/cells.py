"""A scene for medical imaging: 16-bit grey images of tissue with few small cells, about 2 % of the pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multiseg.dataset.scenes.numbers import Numbers, any_seed

MINIMUM_SIZE = 32  # pixels of an image's side, so that a cell has some
CLASSES = ("tissue", "cell")
_FRACTION = 0.02  # of the pixels are cells, on average


def pairs(size: int, seed: int | None) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Yield 16-bit grey images with one to three cells among thin vessels of the same brightness, and masks of 0 and 1."""
    start = any_seed() if seed is None else seed
    for number in count():
        pixels, labels = _tissue(Numbers(start, number), size)
        yield Image.fromarray(pixels), Image.fromarray(labels)


def _tissue(numbers: Numbers, size: int) -> tuple[NDArray[np.uint16], NDArray[np.uint8]]:
    """Return an image (H, W) of numbers up to 65,535, of which tissue has about 8000 to 24,000, and its labels (H, W)."""
    rows, columns = (axis.astype(np.float64) for axis in np.mgrid[:size, :size])
    image = 8000 + 12000 * numbers.clouds(size, 3) + 4000 * numbers.clouds(size, 12)
    brightness = numbers.uniform(10000, 20000)
    for _ in range(3):  # vessels: bright lines, which brightness alone does not tell from cells
        angle, place = numbers.uniform(0, math.pi), numbers.uniform(0.2, 0.8) * size
        distance = (columns - size / 2) * math.cos(angle) + (rows - size / 2) * math.sin(angle) + size / 2 - place
        image += brightness * np.exp(-(distance**2) / 2)
    labels = np.zeros((size, size), np.uint8)
    cells = 1 + numbers.below(3)
    area = _FRACTION * size**2 * numbers.uniform(0.6, 1.4) / cells
    for _ in range(cells):
        stretch, angle = numbers.uniform(0.75, 1.33), numbers.uniform(0, math.pi)
        radius = math.sqrt(area / math.pi)
        row, column = (numbers.uniform(1.4 * radius, size - 1.4 * radius) for _ in range(2))
        x = ((columns - column) * math.cos(angle) + (rows - row) * math.sin(angle)) / (radius * stretch)
        y = ((rows - row) * math.cos(angle) - (columns - column) * math.sin(angle)) / (radius / stretch)
        distance = np.sqrt(x**2 + y**2)
        image += brightness / (1 + np.exp((distance - 1) * radius * 2))  # an edge of about a pixel
        labels[distance < 1] = 1
    image += 1500 * numbers.noise(size, size)
    return np.rint(np.clip(image, 0, 65535)).astype(np.uint16), labels
