"""The tutorial's images: random triangles, as outlines and filled."""

from __future__ import annotations

import random
from collections.abc import Iterator

from PIL import Image, ImageDraw


def pairs(size: int, seed: int | None) -> Iterator[tuple[Image.Image, Image.Image]]:
    """Yield triangles as DIGITS' script draws them: grey images, white with one black triangle, its outline and filled."""
    numbers = random.Random(seed)
    while True:
        # Python guarantees the same random() for the same seed in all versions, but not the same randrange()
        corners = [int(numbers.random() * size) for _ in range(6)]
        yield _triangle(size, corners), _triangle(size, corners, filled=True)


def _triangle(size: int, corners: list[int], filled: bool = False) -> Image.Image:
    image = Image.new("L", (size, size), 255)
    draw = ImageDraw.Draw(image)
    if filled:
        draw.polygon(corners, fill=0)
    draw.polygon(corners, outline=0)  # a separate call: Pillow omits an outline that has the fill's colour
    return image
