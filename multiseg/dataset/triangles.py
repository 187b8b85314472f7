"""Create the tutorial's images: random triangles, as outlines and filled."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

from multiseg.dataset.staging import staged_folder
from multiseg.errors import SettingsError, setting


def create_images(
    folder: str | os.PathLike[str],
    count: int = 10_000,
    size: int = 32,
    grid: int = 10,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw ``count`` pairs of ``size`` x ``size`` grey images into the new folder ``folder``, as DIGITS' script does.

    Each image is white with one random black triangle: its outline in ``input/``, filled in ``target/``, named
    00000000.png and so on. ``grid.png`` has ``grid`` x ``grid`` more outlines. The same seed creates the same files.
    ``progress`` is called with the number of pairs done and the total. Raises SettingsError for a number out of range,
    DatasetError if the folder exists or cannot be written.
    """
    for name, value, minimum in (("count", count, 1), ("size", size, 1), ("grid", grid, 1), ("seed", seed, 0)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < minimum):
            raise SettingsError(f"{setting(name)} {value!r} must be a whole number, {minimum} or more")
    numbers = random.Random(seed)
    with staged_folder(folder) as staging:
        (staging / "input").mkdir()
        (staging / "target").mkdir()
        for number in range(count):
            corners = _corners(numbers, size)
            _triangle(size, corners).save(staging / "input" / f"{number:08d}.png")
            _triangle(size, corners, filled=True).save(staging / "target" / f"{number:08d}.png")
            if progress is not None and (number % 100 == 99 or number + 1 == count):
                progress(number + 1, count)
        picture = Image.new("L", (grid * size, grid * size))
        for cell in range(grid * grid):
            picture.paste(_triangle(size, _corners(numbers, size)), (cell % grid * size, cell // grid * size))
        picture.save(staging / "grid.png")
    return Path(folder)


def _corners(numbers: random.Random, size: int) -> list[int]:
    # Python guarantees the same random() for the same seed in all versions, but not the same randrange()
    return [int(numbers.random() * size) for _ in range(6)]


def _triangle(size: int, corners: list[int], filled: bool = False) -> Image.Image:
    image = Image.new("L", (size, size), 255)
    draw = ImageDraw.Draw(image)
    if filled:
        draw.polygon(corners, fill=0)
    draw.polygon(corners, outline=0)  # a separate call: Pillow omits an outline that has the fill's colour
    return image
