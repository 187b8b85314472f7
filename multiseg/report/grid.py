"""One large image, at its full size, through every run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multiseg.images import decode_image, read_bytes
from multiseg.report.facts import RunFacts
from multiseg.report.scan import CANNOT_SHOW, Outputs, Pixels


@dataclass(frozen=True)
class Grid:
    """The image (CHW), each run's output (CHW float32) or why there is none, and where those outputs disagree."""

    path: Path
    image: Pixels
    outputs: tuple[tuple[RunFacts, Outputs | str], ...]
    split: Pixels | None
    """HW, the number of runs in the minority scaled to 0..255; None with fewer than two outputs."""
    disagreement: float


def load_grid(path: Path, facts: Sequence[RunFacts]) -> Grid:
    """Test the image on every run, unresized. Raises ImageError where it is missing or is no image."""
    image = decode_image(read_bytes(path), str(path), "any")
    outputs: list[tuple[RunFacts, Outputs | str]] = []
    for each in facts:
        try:
            outputs.append((each, each.run.test_one(path, resize=False).array))
        except CANNOT_SHOW as error:
            outputs.append((each, str(error)))
    found = [output < each.threshold for each, output in outputs if not isinstance(output, str)]
    split = None
    disagreement = 0.0
    if len(found) > 1 and len({one.shape for one in found}) == 1:
        votes = np.sum(found, axis=0)
        minority = np.minimum(votes, len(found) - votes).max(axis=0)
        disagreement = float((minority > 0).mean())
        split = (minority * (255 // (len(found) // 2))).astype(np.uint8)
    return Grid(path, image, tuple(outputs), split, disagreement)
