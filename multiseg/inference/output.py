"""A network's output for one image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multiseg.dataset.class_colours import PALETTE_SIZE, background, class_name, palette
from multiseg.dataset.foreground import BINARY, Foreground
from multiseg.dataset.labels import Labels
from multiseg.errors import ImageError, MultisegError, SettingsError, setting
from multiseg.images import PixelConversion, Pixels, Values, picture_of, to_image
from multiseg.images.classes import class_image, overlay_image
from multiseg.images.scores import highest
from multiseg.layout import Floats


@dataclass(frozen=True, eq=False)
class Output:
    """A network's output for one image: ``array`` (C, H, W) float32 in RGB, and ``input``, the input image (C, H, W).

    ``classifies`` states that the network scores the classes of the whole image: ``array`` holds their scores, and is no picture.
    ``labels`` describes the classes if the network scores those of every pixel, and is None otherwise. ``foreground`` divides the
    values of one channel into two classes.
    """

    array: Floats
    input: Values
    pixel_conversion: PixelConversion = "clip"
    source: Path | None = None
    classifies: bool = False
    labels: Labels | None = None
    foreground: Foreground = BINARY

    @cached_property
    def image(self) -> Image.Image:
        """The output as a picture: of class indices a palette image (mode P) whose values are the classes.

        Raises ImageError for other outputs unless they have one or three channels, and for scores of the classes of an image;
        SettingsError for class indices whose values are to be stretched.
        """
        if self.classifies:
            raise ImageError(
                f"{self.source or 'the output'}: the network scores the {self.array.size} classes of an image, which makes no "
                "picture; write .npy, or print the classes"
            )
        if self.labels is not None:
            if self.pixel_conversion != "clip":
                raise SettingsError(
                    f"{setting('pixel_conversion', self.pixel_conversion)}: is for pictures, and the network scores classes of "
                    "pixels, whose picture has their indices; leave it out"
                )
            return class_image(self.classes, palette(self.labels))
        return to_image(self.array, self.pixel_conversion)

    @cached_property
    def classes(self) -> Pixels:
        """The class of every pixel, (H, W) uint8: the lowest one of the highest score; of one channel 1 for the light side.

        Raises ImageError unless the network scores at most 256 classes of pixels.
        """
        self._scores_of_pixels("classes")
        if len(self.array) > PALETTE_SIZE:
            raise ImageError(
                f"{self.source or 'the output'}: has {len(self.array)} classes, a picture of classes has at most {PALETTE_SIZE}; "
                "write .npy"
            )
        if len(self.array) == 1:
            inside = self.foreground.in_outputs(self.array[0])
            return (inside if self.foreground.side == "light" else ~inside).astype(np.uint8)
        return highest(self.array)

    def overlay(self, opacity: float = 0.5, outline: int = 0) -> Image.Image:
        """Return the input with the colours of the classes over it, as an RGB picture of the output's size.

        ``opacity`` is that of the colours, from 0 (the input alone) to 1; ``outline`` the width in pixels of an opaque border
        within every region, 0 for none. The background (:func:`multiseg.dataset.class_colours.background`) is transparent.
        Raises SettingsError for a value out of range, ImageError for a network that does not score classes of pixels.
        """
        if not 0 <= opacity <= 1:
            raise SettingsError(f"{setting('opacity', opacity)}: must be a number from 0 to 1")
        if outline < 0:
            raise SettingsError(f"{setting('outline', outline)}: must be a whole number of pixels from 0")
        labels = self._scores_of_pixels("overlay")
        return overlay_image(
            self.input_image, self.classes, palette(labels), opacity, outline, transparent=background(labels)
        )

    def class_pixels(self) -> list[dict[str, Any]]:
        """Return a dict of class, name and pixels for each class that occurs in :attr:`classes`."""
        labels = self._scores_of_pixels("class_pixels")
        counts = np.bincount(self.classes.ravel()).tolist()
        return [
            {"class": index, "name": class_name(labels, index), "pixels": count}
            for index, count in enumerate(counts)
            if count
        ]

    def _scores_of_pixels(self, what: str) -> Labels:
        """Return the labels. Raise ImageError unless the network scores the classes of pixels."""
        if self.labels is None:
            raise ImageError(
                f"{self.source or 'the output'}: has no {what}, because the network was not trained on class indices of pixels; "
                "use its image"
            )
        return self.labels

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
