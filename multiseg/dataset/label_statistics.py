"""What the target files of a dataset have in common, gathered while they are encoded, possibly in several processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.label_tables import Colour
from multiseg.errors import DatasetError, setting
from multiseg.images import Values

VALUES = 256
WHITE = 255
MOST_NUMBER = 20  # of small class numbers: PASCAL VOC has 0 to 20
NUMBERS, ONLY_WHITE, BOTH = "numbers", "white", "numbers and white"  # content of a file, see LabelStatistics.examples


@dataclass
class LabelStatistics:
    """How often each value occurs in the labels, the palette of the files, and the files whose compression is lossy.

    ``palette`` has, by index, the colour of those that occur, and the first file with it. ``examples`` has the first file of each
    content that hints at class numbers: NUMBERS up to MOST_NUMBER, not only 0; ONLY_WHITE, 255 and possibly 0; and BOTH.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(VALUES, np.int64))
    palette: dict[int, tuple[Colour, str]] = field(default_factory=dict)
    lossy: int = 0
    first_lossy: tuple[str, str] | None = None  # the file and its compression
    examples: dict[str, str] = field(default_factory=dict)

    def count(self, labels: Sequence[NDArray[np.uint8]], paths: Sequence[str]) -> NDArray[np.int64]:
        """Add the values of the labels of files, and return how often each of 0 to 255 occurs in them."""
        counts = np.zeros(VALUES, np.int64)
        for label, path in zip(labels, paths, strict=True):
            of_file = np.bincount(label.ravel(), minlength=VALUES)
            counts += of_file
            content = _content(of_file)
            if content:
                self.examples.setdefault(content, path)
        self.counts += counts
        return counts

    @property
    def values(self) -> list[int]:
        """The values that occur, in order."""
        values: list[int] = np.flatnonzero(self.counts).tolist()
        return values

    @property
    def has_numbers_and_white(self) -> bool:
        """Whether the values are several numbers up to MOST_NUMBER and 255, in files that are not lossy: not shades of grey."""
        *numbers, last = self.values or [0]
        return len(numbers) > 1 and numbers[-1] <= MOST_NUMBER and last == WHITE and self.first_lossy is None

    def add_lossy(self, path: str, compression: str) -> None:
        """Note that a file has a lossy compression."""
        self.lossy += 1
        self.first_lossy = self.first_lossy or (path, compression)

    def add_palette(self, values: Values, palette: NDArray[np.uint8], path: str) -> None:
        """Note the colours of the indices that occur in a palette image. Raises DatasetError if an earlier file has others."""
        for index in np.unique(values).tolist():
            if index < len(palette):
                red, green, blue = palette[index].tolist()
                self._add_colour(index, (red, green, blue), path)

    def _add_colour(self, index: int, colour: Colour, path: str) -> None:
        known, first = self.palette.setdefault(index, (colour, path))
        if known != colour:
            raise DatasetError(
                f"{path}: index {index} of its palette is {_text(colour)}, in {first} it is {_text(known)}: the palettes differ; "
                f"to read masks by colour, state the classes' colours with {setting('colours', example='FILE')}"
            )

    def merge(self, other: LabelStatistics) -> None:
        """Add the statistics of other files. Raises DatasetError if their palettes differ."""
        self.counts += other.counts
        for index, (colour, path) in other.palette.items():
            self._add_colour(index, colour, path)
        self.lossy += other.lossy
        self.first_lossy = self.first_lossy or other.first_lossy
        self.examples = {**other.examples, **self.examples}

    def to_json(self) -> dict[str, int]:
        """Return how often each value occurs, for dataset.json."""
        return {str(value): int(self.counts[value]) for value in np.flatnonzero(self.counts).tolist()}


def _content(counts: NDArray[np.int64]) -> str:
    """Return the content of a file whose values occur ``counts`` (256,) times, see LabelStatistics; empty for any other."""
    if counts[MOST_NUMBER + 1 : WHITE].any():
        return ""
    has_numbers = bool(counts[1 : MOST_NUMBER + 1].any())
    if counts[WHITE]:
        return BOTH if has_numbers else ONLY_WHITE
    return NUMBERS if has_numbers else ""


def _text(colour: Colour) -> str:
    return " ".join(map(str, colour))
