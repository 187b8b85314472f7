"""Random augmentation of training images, drawn anew in each epoch.

Geometric changes apply to input and target, changes of colour and noise to the input only.
Flips, quarter turns and crops use NumPy and do not change pixel values. Rotation, scale and translation are combined, with a
crop, into one affine map, applied by Pillow (already a dependency), so that pixels are interpolated once: inputs bilinearly,
targets by the nearest pixel, at the same places. Inputs of which a crop is only scaled are resized by Pillow. Dedicated libraries
(albumentations, imgaug, torchvision) would add OpenCV or a framework as a dependency for no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from multiseg.dataset.colour_changes import change_colours
from multiseg.dataset.cropping import Crop, cut, label_size_of, random_corner, steps
from multiseg.dataset.warping import scaled_part, warped
from multiseg.errors import DatasetError, SettingsError, setting
from multiseg.schema import is_number

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]
Epoch = tuple[int, int, int]  # seed, epoch, position of the pair in the split

FLIPS = ("none", "horizontal", "vertical", "both")
# separate this module's random streams from that of the epoch order, and from each other
DOMAIN = 0x617567
CROP_AND_COLOUR = 0x63726F


@dataclass(frozen=True)
class Option:
    """The values that an option of the augmentation takes: a condition, the words that require it, and an example."""

    words: str
    holds: Callable[[Any], bool]
    example: str


def _from_0(example: str, most: float = math.inf) -> Option:
    limit = f", up to {most:g}" if most < math.inf else ""
    return Option(f"must be a number from 0{limit}", lambda value: is_number(value) and 0 <= value <= most, example)


def _is_scale(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) == 2 and all(map(is_number, value)) and 0 < value[0] <= value[1]
    return is_number(value) and value >= 0


OPTIONS: dict[str, Option] = {
    "flip": Option(f"choose one of {', '.join(FLIPS)}", lambda value: value in FLIPS, "both"),
    "quarter_turns": Option("must be true or false", lambda value: isinstance(value, bool), "true"),
    "rotation": _from_0("10", 180.0),
    "scale": Option("must be a number from 0, or the smallest and the largest factor, e.g. 0.5,2", _is_scale, "0.5,2"),
    "translation": _from_0("0.1", 1.0),
    "brightness": _from_0("0.2"),
    "contrast": _from_0("0.2"),
    "saturation": _from_0("0.2"),
    "noise": _from_0("5"),
}


@dataclass(frozen=True)
class Augmentation:
    """The range of random changes to training images. The defaults change nothing.

    - ``flip``: ``horizontal`` (left to right), ``vertical``, or ``both``, each with probability 1/2.
    - ``quarter_turns``: rotation by 0, 90, 180 or 270 degrees with equal probability; square images only, except with a crop.
    - ``rotation``: maximum angle in degrees in either direction, 0 to 180.
    - ``scale``: the smallest and the largest factor of the size, e.g. (0.5, 2); or a number, where 0.2 is (1/1.2, 1.2). The
      logarithm of the factor is uniform, so that images are enlarged as often as reduced. Without a crop images keep their size.
    - ``translation``: maximum shift in either direction as a fraction of width and height, 0 to 1.
    - ``brightness``, ``contrast``, ``saturation``: maximum change of the factors of multiseg.dataset.colour_changes: 0.2 draws a
      factor from 0.8 to 1.2; none is below 0.
    - ``noise``: standard deviation of normal noise on the input, in pixel values; results are clipped to 0 to 255
      for 8-bit images; other values are not clipped.

    Changes are made in this order; a crop is made with rotation, scale and translation. Areas outside the image repeat the border
    pixels; in a crop they are filled, see multiseg.dataset.cropping.Crop.
    """

    flip: str = "none"
    quarter_turns: bool = False
    rotation: float = 0.0
    scale: float | Sequence[float] = 0.0
    translation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    noise: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Augmentation:
        """Return the augmentation for a mapping of some of the fields. Raise one SettingsError that lists all problems."""
        problems = [
            f"{setting('augment')} has no {name!r}; it takes: {', '.join(OPTIONS)}"
            for name in options
            if name not in OPTIONS
        ]
        values = {name: value for name, value in options.items() if name in OPTIONS}
        problems += [
            f"{setting('augment')}: {name}={value!r}: {OPTIONS[name].words}"
            for name, value in values.items()
            if not OPTIONS[name].holds(value)
        ]
        if problems:
            raise SettingsError("; ".join(problems))
        if isinstance(values.get("scale"), tuple):
            values["scale"] = list(values["scale"])  # as JSON has it
        return cls(**values)

    @property
    def changes(self) -> bool:
        """Return whether any change is enabled."""
        return self != Augmentation()

    @property
    def warps(self) -> bool:
        """Return whether pixels are interpolated: rotated, scaled or translated."""
        return bool(self.rotation or self.scale or self.translation)

    def misfits(self, shape: Shape, label_shape: Shape) -> list[str]:
        """Return the problems of applying this augmentation, without a crop, to images of these shapes ``(C, H, W)``."""
        square = shape[1] == shape[2] and label_shape[1] == label_shape[2]
        if self.quarter_turns and not square:
            return [f"{setting('augment')}: quarter_turns: needs square images, not {shape[2]}x{shape[1]}"]
        return []

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults as a plain dict, which :meth:`of` accepts."""
        defaults = asdict(Augmentation())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    def pair(self, feature: Array, label: Array, epoch: Epoch, crop: Crop | None = None) -> tuple[Array, Array]:
        """Return one feature and its label, both ``(C, H, W)``, changed at random; dtypes are kept, and shapes without a crop.

        The changes depend only on the three numbers of ``epoch``.
        """
        # always draw all numbers, so that enabling one change does not alter the others
        draw = np.random.default_rng((DOMAIN, *epoch))
        flips, turns, unit = draw.random(2) < 0.5, int(draw.integers(4)), draw.uniform(-1, 1, 4)
        fractions = np.random.default_rng((CROP_AND_COLOUR, *epoch)).random(5)
        if self.flip in ("horizontal", "both") and flips[0]:
            feature, label = feature[:, :, ::-1], label[:, :, ::-1]
        if self.flip in ("vertical", "both") and flips[1]:
            feature, label = feature[:, ::-1], label[:, ::-1]
        if self.quarter_turns:
            feature, label = np.rot90(feature, turns, (1, 2)), np.rot90(label, turns, (1, 2))
        if crop is not None:
            feature, label = self._cropped(feature, label, unit if self.warps else None, fractions[:2], crop)
        elif self.warps:
            affine = self._affine(unit)
            feature = _in_place(feature, affine, Image.Resampling.BILINEAR)
            label = _in_place(label, affine, Image.Resampling.NEAREST)
        factors = [
            max(0.0, 1 + most * (2 * fraction - 1))
            for most, fraction in zip((self.brightness, self.contrast, self.saturation), fractions[2:], strict=True)
        ]
        if any(factor != 1 for factor in factors):
            feature = change_colours(feature, factors)
        if self.noise:
            noisy = feature + draw.normal(0.0, self.noise, feature.shape)
            if feature.dtype == np.uint8:
                noisy = np.clip(np.rint(noisy), 0, 255)
            feature = noisy.astype(feature.dtype)
        return feature, label

    def _turn(self, unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the 2x2 matrix of the rotation from result to source coordinates (x, y)."""
        angle = math.radians(self.rotation * unit[0])
        return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])

    def _factor(self, unit: npt.NDArray[np.float64]) -> float:
        """Return the factor of the size."""
        if isinstance(self.scale, Sequence):
            low, high = self.scale
            return float(low * (high / low) ** ((1 + unit[1]) / 2))
        return float((1 + self.scale) ** unit[1])

    def _affine(self, unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the 2x3 map from result to source coordinates (x, y), relative to the centre, as fractions of the size."""
        linear = self._turn(unit) / self._factor(unit)
        return np.column_stack([linear, -linear @ (self.translation * unit[2:])])

    def _cropped(
        self,
        feature: Array,
        label: Array,
        unit: npt.NDArray[np.float64] | None,
        fractions: npt.NDArray[np.float64],
        crop: Crop,
    ) -> tuple[Array, Array]:
        """Return the crop of a pair, scaled, rotated and translated by the numbers ``unit`` unless they are None."""
        image, label_image = feature.shape[1:], label.shape[1:]
        label_size = label_size_of(crop.size, image, label_image)
        feature_fill = None if crop.label_fill is None else _of_dtype(crop.feature_fill, feature)
        label_fill = None if crop.label_fill is None else (crop.label_fill,) * len(label)
        if label.dtype.kind in "iu" and crop.label_fill is not None and crop.label_fill > np.iinfo(label.dtype).max:
            label = label.astype(np.int32)
        whole = label_image == (1, 1)
        multiples = steps(image, label_image)
        if unit is None:
            corner = random_corner(crop.size, image, multiples, fractions.tolist())
            feature = cut(feature, corner, crop.size, feature_fill)
            label_corner = corner[0] * label_image[0] // image[0], corner[1] * label_image[1] // image[1]
            return feature, label if whole else cut(label, label_corner, label_size, label_fill)
        factor, size = self._factor(unit), np.array(image[::-1], np.float64)
        scaled = max(1, round(image[0] * factor)), max(1, round(image[1] * factor))
        corner = random_corner(crop.size, scaled, multiples, fractions.tolist())
        linear = self._turn(unit) @ np.diag(size / scaled[::-1])
        shift = -(linear @ (self.translation * unit[2:] * size))
        centre = np.array(scaled[::-1], np.float64) / 2 - corner[::-1]  # of the scaled image, in the crop
        if self.rotation or self.translation:
            feature = warped(feature, linear, shift, crop.size, centre, Image.Resampling.BILINEAR, feature_fill)
        else:
            feature = cut(scaled_part(feature, scaled, corner, crop.size), (0, 0), crop.size, feature_fill)
        if whole:
            return feature, label
        ratio = np.array(label_image[::-1], np.float64) / size
        label_linear = ratio[:, None] * linear / ratio
        return feature, warped(
            label, label_linear, ratio * shift, label_size, ratio * centre, Image.Resampling.NEAREST, label_fill
        )


class Augmented:
    """Augment the batches of one epoch. The changes to a pair depend only on seed, epoch and its position in the split."""

    def __init__(self, augmentation: Augmentation, seed: int, epoch: int, crop: Crop | None = None) -> None:
        self.augmentation, self.seed, self.epoch, self.crop = augmentation, seed, epoch, crop

    def __call__(
        self, features: Sequence[Array], labels: Sequence[Array] | None, indices: npt.NDArray[np.int64]
    ) -> tuple[Array, Array | None]:
        """Return features and labels ``(N, C, H, W)`` of the pairs at ``indices``, augmented; unchanged without labels.

        With a crop, the images may differ in size.
        """
        if labels is None:
            return _stacked(features), None
        pairs = [
            self.augmentation.pair(feature, label, (self.seed, self.epoch, int(index)), self.crop)
            for feature, label, index in zip(features, labels, indices, strict=True)
        ]
        return _stacked([feature for feature, _ in pairs]), _stacked([label for _, label in pairs])


def _stacked(images: Sequence[Array]) -> Array:
    """Return images (C, H, W) as one array. Raise DatasetError if they differ in shape."""
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise DatasetError(
            f"images of different shapes ({', '.join(map(str, sorted(shapes)))}) cannot form a batch; choose "
            f"{setting('batch_size', 1)}, or a {setting('crop')}"
        )
    return np.stack(images)


def _of_dtype(values: Sequence[float], image: Array) -> tuple[float, ...]:
    """Return values that an image can hold: rounded to integers unless it has floating-point values."""
    return tuple(values) if image.dtype.kind == "f" else tuple(int(value) for value in np.rint(values))


def _in_place(image: Array, affine: npt.NDArray[np.float64], resampling: Image.Resampling) -> Array:
    """Apply an affine map to an image ``(C, H, W)`` about its middle, repeating border pixels outside of it."""
    # pixels are square: the angle applies to pixel coordinates, the translation is a fraction of each side
    size = np.array(image.shape[:0:-1], np.float64)
    return warped(image, affine[:, :2], affine[:, 2] * size, image.shape[1:], size / 2, resampling, None)
