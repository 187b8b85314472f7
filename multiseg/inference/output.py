"""A network's output for one image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from multiseg.errors import MultisegError
from multiseg.images import PixelConversion, Pixels, array_to_image, to_image
from multiseg.layout import Floats


@dataclass(frozen=True, eq=False)
class Output:
    """A network's output for one image: ``array`` (C, H, W) float32 in RGB, and ``input``, the input image (C, H, W) uint8."""

    array: Floats
    input: Pixels
    pixel_conversion: PixelConversion = "clip"
    source: Path | None = None

    @cached_property
    def image(self) -> Image.Image:
        """The output as a picture. Raises ImageError unless it has one or three channels."""
        return to_image(self.array, self.pixel_conversion)

    @property
    def input_image(self) -> Image.Image:
        """The input as a picture."""
        return array_to_image(self.input)


@dataclass(frozen=True)
class Failure:
    """An image that could not be tested, and why."""

    source: Path
    error: MultisegError
