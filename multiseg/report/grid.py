"""Test one large image, at its full size, with every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multiseg.images import Values, load_image
from multiseg.inference.output import Output
from multiseg.report.class_scan import minority
from multiseg.report.facts import RunFacts
from multiseg.report.scan import CANNOT_SHOW, Pixels

MOST_PIXELS = 1 << 28  # of the image


@dataclass(frozen=True)
class Grid:
    """The image (CHW), each run's output or the error message, and the pixels on which outputs disagree."""

    path: Path
    image: Values
    outputs: tuple[tuple[RunFacts, Output | str], ...]
    split: Pixels | None
    """HW, the number of runs in the minority, scaled to 0..255; None for fewer than two outputs."""
    disagreement: float


def load_grid(path: Path, facts: Sequence[RunFacts]) -> Grid:
    """Test the image with every run, without resizing. Raises ImageError if it is missing or not an image."""
    image = load_image(path, "RGB", facts[0].run.exif, max_pixels=MOST_PIXELS)
    outputs: list[tuple[RunFacts, Output | str]] = []
    for each in facts:
        try:
            outputs.append((each, each.run.test_one(path, resize=False, max_pixels=MOST_PIXELS)))
        except CANNOT_SHOW as error:
            outputs.append((each, str(error)))
    shown = [(each, output) for each, output in outputs if not isinstance(output, str)]
    of_classes = all(output.labels is not None for _, output in shown)
    maps = [
        output.classes[np.newaxis] if of_classes else each.foreground.in_outputs(output.array)
        for each, output in shown
        if of_classes or output.labels is None
    ]
    split, disagreement = None, 0.0
    if len(maps) > 1 and len({one.shape for one in maps}) == 1:
        others = minority(np.stack(maps)).max(axis=0)
        most = len(maps) - 1 if of_classes else len(maps) // 2
        disagreement, split = float((others > 0).mean()), (others * (255 // most)).astype(np.uint8)
    return Grid(path, image, tuple(outputs), split, disagreement)
