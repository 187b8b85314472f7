"""The rules by which target files become labels: their values are kept, mapped or looked up, never converted in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from multiseg.dataset.label_files import StoredImage, stored_image
from multiseg.dataset.label_statistics import LabelStatistics
from multiseg.dataset.label_tables import Colour, Key
from multiseg.errors import ImageError, setting
from multiseg.images import Channels, Pixels, Values, array_to_image, decode_image, image_to_array
from multiseg.network import CLASSES, IMAGES, LabelKind

_UNKNOWN = -1


@dataclass(frozen=True)
class LabelRules:
    """How the files of targets are read, the same for all pairs of a dataset.

    - ``channels``: the conversion of targets that are pictures. ``convert``: whether it is requested for the targets, and applies
      to palettes, 1-bit and 16-bit images too; otherwise their numbers are kept.
    - ``value_map``: labels of values and colours; ``colours``: those of the classes in order, which are looked up exactly.
    - ``classes``: the number of classes, None if it is not stated; ``ignore``: the label that is no class.
    """

    kind: LabelKind = IMAGES
    channels: Channels = "none"
    convert: bool = False
    value_map: Mapping[Key, int] | None = None
    colours: tuple[Colour, ...] = ()
    classes: int | None = None
    ignore: int | None = None

    def keeps(self, mode: str) -> bool:
        """Return whether the pixels of a plain PNG of this Pillow mode are the labels as they are."""
        if self.value_map:
            return False
        return mode == "L" if self.kind == CLASSES else self.channels in ("none", mode)

    def pixels(self, data: bytes, path: str, statistics: LabelStatistics) -> Pixels:
        """Return the label (C, H, W) of a target file's bytes; what the file shows about all of them goes to ``statistics``.

        Raises ImageError, which names the file and the fix, for values that are not labels.
        """
        stored = stored_image(data, path)
        return (
            self._classes(stored, path, statistics)
            if self.kind == CLASSES
            else self._picture(stored, data, path, statistics)
        )

    def _classes(self, stored: StoredImage, path: str, statistics: LabelStatistics) -> Pixels:
        if stored.lossy:
            raise ImageError(
                f"{path}: is a {stored.lossy} file, whose compression changes the class numbers at edges; save class masks as PNG"
            )
        if stored.alpha is not None and (stored.alpha != 255).any():
            raise ImageError(f"{path}: is a transparent image, which is not a class mask; save it without transparency")
        return self._numbers(stored, path, statistics)

    def _numbers(self, stored: StoredImage, path: str, statistics: LabelStatistics) -> Pixels:
        """Return the label (1, H, W) of each pixel: its value or its colour, mapped."""
        values = stored.values
        if stored.lacks_grey and values.ndim == 3 and not self._by_colour and (values == values[..., :1]).all():
            values = values[..., 0]
        if values.ndim == 3:
            labels = self._looked_up(values, path)
        elif stored.palette is not None and self._by_colour:
            labels = self._looked_up(_palette_colours(values, stored.palette, path), path)
        else:
            if stored.palette is not None:
                statistics.add_palette(values, stored.palette, path)
            labels = self._mapped(_whole(values, path), path)
        self._check_range(labels, path)
        return labels.astype(np.uint8)[np.newaxis]

    def _picture(self, stored: StoredImage, data: bytes, path: str, statistics: LabelStatistics) -> Pixels:
        if stored.lossy:
            statistics.add_lossy(path, stored.lossy)
        if self.value_map:
            return self._numbers(stored, path, statistics)
        values, alpha = stored.values, stored.alpha
        opaque = alpha is None or bool((alpha == 255).all())
        if values.ndim == 2 and opaque and not (stored.palette is not None and self.convert):
            if stored.bilevel:
                values = values * 255  # black and white
            if stored.palette is not None:
                statistics.add_palette(values, stored.palette, path)
            labels = _whole(values, path)
            self._check_range(labels, path)
            picture = stored.palette is None and not stored.bilevel and values.dtype == np.uint8
            return _converted(labels.astype(np.uint8)[np.newaxis], self.channels if picture or self.convert else "none")
        pixels = decode_image(data, path, self.channels if self.channels != "none" else "any")
        if alpha is not None and (alpha != alpha.flat[0]).any() and (pixels == pixels[:, :1, :1]).all():
            raise ImageError(
                f"{path}: is one colour on a transparent background; to have its shape as the mask, save its alpha "
                "channel as a grey image"
            )
        return pixels

    @cached_property
    def _by_colour(self) -> bool:
        return bool(self.colours) or any(isinstance(key, tuple) for key in self.value_map or ())

    @cached_property
    def _codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The colours as sorted numbers, red * 65536 + green * 256 + blue, and the label of each."""
        labels = {colour: index for index, colour in enumerate(self.colours)}
        labels |= {key: label for key, label in (self.value_map or {}).items() if isinstance(key, tuple)}
        codes = np.array([(r << 16) + (g << 8) + b for r, g, b in labels], np.int64)
        order = np.argsort(codes)
        return codes[order], np.array(list(labels.values()), np.int64)[order]

    @cached_property
    def _table(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The mapped values, sorted, and the label of each."""
        entries = sorted((key, label) for key, label in (self.value_map or {}).items() if isinstance(key, int))
        return np.array([key for key, _ in entries], np.int64), np.array([label for _, label in entries], np.int64)

    def _looked_up(self, colours: Values, path: str) -> NDArray[np.int64]:
        """Return the labels (H, W) of colours (H, W, 3)."""
        if not self._by_colour:
            raise ImageError(
                f"{path}: has three channels, which need a table of the classes' colours: {setting('colours', example='FILE')}, "
                "one R G B in each line"
            )
        red, green, blue = (colours[..., channel].astype(np.int64) for channel in range(3))
        labels = _lookup((red << 16) + (green << 8) + blue, *self._codes)
        unknown = labels == _UNKNOWN
        if unknown.any():
            row, column = np.argwhere(unknown)[0].tolist()
            colour = " ".join(map(str, colours[row, column].tolist()))
            raise ImageError(
                f"{path}: its pixel at x={column}, y={row} has the colour {colour}, which is not that of a class; correct it, "
                f"add the colour to {setting('colours')}, or map it to a label with {setting('label_map')}"
            )
        return labels

    def _mapped(self, values: NDArray[np.int64], path: str) -> NDArray[np.int64]:
        """Return the labels of values; those that the map does not name are kept, unless they are the label of another value."""
        keys, targets = self._table
        if not len(keys):
            return values
        labels = _lookup(values, keys, targets)
        kept = labels == _UNKNOWN
        ambiguous = kept & np.isin(values, targets)
        if ambiguous.any():
            row, column = np.argwhere(ambiguous)[0].tolist()
            raise ImageError(
                f"{path}: its pixel at x={column}, y={row} has the value {values[row, column]}, which is the label of another "
                f"value; add it to {setting('label_map')}, as {values[row, column]}:{values[row, column]} to keep it"
            )
        return np.where(kept, values, labels)

    def _check_range(self, labels: NDArray[np.int64], path: str) -> None:
        """Raise ImageError if a label does not fit in 8 bits, or is not one of the stated number of classes."""
        wrong = (labels < 0) | (labels > 255)
        fix = f"map it to a label of 0 to 255 with {setting('label_map')}"
        if self.kind == CLASSES and self.classes is not None:
            wrong |= labels >= self.classes
            if self.ignore is not None:
                wrong &= labels != self.ignore
            fix = self.fix_of_class
        if wrong.any():
            row, column = np.argwhere(wrong)[0].tolist()
            raise ImageError(f"{path}: its pixel at x={column}, y={row} has the value {labels[row, column]}; {fix}")

    @property
    def fix_of_class(self) -> str:
        """What to do about a class number beyond the stated ones."""
        return (
            f"there are {self.classes} classes, 0 to {(self.classes or 0) - 1}: add it to {setting('classes')}, map it with "
            f"{setting('label_map')}, or leave such pixels out with {setting('ignore')}"
        )

    def check_counts(self, labels: list[Pixels], paths: list[str], counts: NDArray[np.int64]) -> None:
        """Raise ImageError naming the first file of a chunk with an invalid class; ``counts`` (256,) are those of the chunk."""
        if self.kind != CLASSES or self.classes is None:
            return
        invalid = counts.copy()
        invalid[: self.classes] = 0
        if self.ignore is not None:
            invalid[self.ignore] = 0
        if invalid.any():
            for label, path in zip(labels, paths, strict=True):
                self._check_range(label[0].astype(np.int64), path)


def _palette_colours(indices: Values, palette: Pixels, path: str) -> Values:
    """Return the colours (H, W, 3) of indices. Raises ImageError for one beyond the palette, as in some BMP files."""
    wrong = indices >= len(palette)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise ImageError(
            f"{path}: its pixel at x={column}, y={row} has the index {indices[row, column]}, but its palette has "
            f"{len(palette)} colours; leave out {setting('colours')} to read masks by index, or save the file with its colours"
        )
    colours: Values = palette[indices]
    return colours


def _lookup(values: NDArray[np.int64], keys: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the target of each value, -1 for values that are not among the sorted keys."""
    positions = np.minimum(np.searchsorted(keys, values), len(keys) - 1)
    return np.where(keys[positions] == values, targets[positions], _UNKNOWN)


def _whole(values: Values, path: str) -> NDArray[np.int64]:
    """Return numbers as integers. Raises ImageError if one is not a whole number."""
    if values.dtype.kind != "f":
        return values.astype(np.int64)
    with np.errstate(invalid="ignore"):
        whole = np.where(np.isfinite(values), values, 0).astype(np.int64)
    wrong = whole != values
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise ImageError(
            f"{path}: its pixel at x={column}, y={row} has the value {values[row, column]:g}; labels are whole numbers, 0 to 255"
        )
    return whole


def _converted(pixels: Pixels, channels: Channels) -> Pixels:
    image: Any = array_to_image(pixels)
    if channels in ("none", image.mode):
        return pixels
    converted: Image.Image = image.convert(channels)
    return image_to_array(converted)
