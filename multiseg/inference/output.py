"""A network's output for one image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from multiseg.errors import ImageError, MultisegError
from multiseg.images import PixelConversion, Values, picture_of, to_image
from multiseg.layout import Floats


@dataclass(frozen=True, eq=False)
class Output:
    """A network's output for one image: ``array`` (C, H, W) float32 in RGB, and ``input``, the input image (C, H, W).

    ``classifies`` states that the network scores the classes of the whole image: ``array`` holds their scores, and is no picture.
    """

    array: Floats
    input: Values
    pixel_conversion: PixelConversion = "clip"
    source: Path | None = None
    classifies: bool = False

    @cached_property
    def image(self) -> Image.Image:
        """The output as a picture. Raises ImageError unless it has one or three channels, and for scores of classes."""
        if self.classifies:
            raise ImageError(
                f"{self.source or 'the output'}: the network scores the {self.array.size} classes of an image, which makes no "
                "picture; write .npy, or print the classes"
            )
        return to_image(self.array, self.pixel_conversion)

    def best(self, count: int = 5) -> list[tuple[int, float]]:
        """Return the classes of the highest scores with the scores, the best first, for a network that classifies images."""
        scores = self.array.ravel()
        order = np.argsort(-scores, kind="stable")[:count]
        return [(int(index), float(scores[index])) for index in order]

    @property
    def input_image(self) -> Image.Image:
        """The input as a picture; values of other types than uint8 are scaled by their range."""
        return picture_of(self.input)


@dataclass(frozen=True)
class Failure:
    """An image that could not be tested, and why."""

    source: Path
    error: MultisegError
