"""Create a folder of synthetic images and masks; the table of scenes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from multiseg.dataset.scenes import cells, shapes, triangles
from multiseg.dataset.staging import staged_folder
from multiseg.errors import SettingsError, setting

CLASSES_FILE = "classes.txt"

Pair = tuple[Image.Image, Image.Image]


@dataclass(frozen=True)
class Scene:
    """A kind of synthetic images.

    ``pairs(size, seed)`` yields inputs and masks without end; ``count``, ``size`` and ``grid`` are the defaults of
    :func:`create_images`. ``classes`` are the names of the masks' class indices, empty for binary masks of 0 and 255.
    """

    pairs: Callable[[int, int | None], Iterator[Pair]]
    count: int
    size: int
    grid: int
    minimum_size: int = 1
    classes: tuple[str, ...] = ()


SCENES: dict[str, Scene] = {
    "triangles": Scene(triangles.pairs, count=10_000, size=32, grid=10),
    "shapes": Scene(
        shapes.pairs, count=1000, size=64, grid=4, minimum_size=shapes.MINIMUM_SIZE, classes=shapes.CLASSES
    ),
    "cells": Scene(cells.pairs, count=600, size=64, grid=4, minimum_size=cells.MINIMUM_SIZE, classes=cells.CLASSES),
}


def create_images(
    folder: str | os.PathLike[str],
    count: int | None = None,
    size: int | None = None,
    grid: int | None = None,
    seed: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    scene: str = "triangles",
) -> Path:
    """Draw ``count`` pairs of ``size`` x ``size`` images into the new folder ``folder``: ``input/`` and ``target/``.

    Files are named 00000000.png and so on. ``grid.png`` has ``grid`` x ``grid`` more inputs side by side. The same seed creates
    the same files; None draws other images each time. ``scene`` states what is drawn, and the defaults of the numbers:

    - ``triangles`` (10,000 of 32x32, grid 10), as DIGITS' script does: white grey images with one random black triangle, its
      outline in the input, filled in the target.
    - ``shapes`` (1000 of 64x64, grid 4): RGB images of six shapes on textured backgrounds, and palette masks of seven classes
      whose borders are 255, to be ignored.
    - ``cells`` (600 of 64x64, grid 4): 16-bit grey images of tissue, and grey masks of 0 and 1, where 1 is about 2 % of the
      pixels.

    The folder of a scene with classes also has their names in ``classes.txt``. ``progress`` is called with the number of pairs
    done and the total. Raises SettingsError for an unknown scene or a number out of range, DatasetError if the folder exists
    or cannot be written.
    """
    if scene not in SCENES:
        raise SettingsError(f"{setting('scene', scene)}: choose one of {', '.join(SCENES)}")
    chosen = SCENES[scene]
    count = chosen.count if count is None else count
    size = chosen.size if size is None else size
    grid = chosen.grid if grid is None else grid
    ranges = (("count", count, 1), ("size", size, chosen.minimum_size), ("grid", grid, 1), ("seed", seed, 0))
    for name, value, minimum in ranges:
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < minimum):
            raise SettingsError(f"{setting(name, value)}: must be a whole number from {minimum}")
    with staged_folder(folder) as staging:
        (staging / "input").mkdir()
        (staging / "target").mkdir()
        pairs = chosen.pairs(size, seed)
        for number, (picture, mask) in zip(range(count), pairs, strict=False):
            picture.save(staging / "input" / f"{number:08d}.png")
            mask.save(staging / "target" / f"{number:08d}.png")
            if progress is not None and (number % 100 == 99 or number + 1 == count):
                progress(number + 1, count)
        _grid(pairs, grid).save(staging / "grid.png")
        if chosen.classes:
            (staging / CLASSES_FILE).write_text("".join(f"{name}\n" for name in chosen.classes), encoding="utf-8")
    return Path(folder)


def _grid(pairs: Iterator[Pair], side: int) -> Image.Image:
    """Return the next ``side`` x ``side`` inputs as one image."""
    rows = [np.concatenate([np.asarray(picture) for picture, _ in islice(pairs, side)], axis=1) for _ in range(side)]
    return Image.fromarray(np.concatenate(rows))
