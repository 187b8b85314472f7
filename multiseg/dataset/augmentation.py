"""Random augmentation of training images, drawn anew in each epoch.

Geometric changes apply to input and target, noise to the input only.
Flips and quarter turns use NumPy and do not change pixel values. Rotation, scale and translation are combined into one affine
map, applied by Pillow (already a dependency), so that pixels are interpolated once. Dedicated libraries (albumentations,
imgaug, torchvision) would add OpenCV or a framework as a dependency for no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from multiseg.errors import SettingsError, setting

Array = npt.NDArray[Any]
Shape = tuple[int, int, int]

FLIPS = ("none", "horizontal", "vertical", "both")
DOMAIN = 0x617567  # separates this random stream from that of the epoch order


@dataclass(frozen=True)
class Augmentation:
    """The range of random changes to training images. The defaults change nothing.

    - ``flip``: ``horizontal`` (left to right), ``vertical``, or ``both``, each with probability 1/2.
    - ``quarter_turns``: rotation by 0, 90, 180 or 270 degrees with equal probability; square images only.
    - ``rotation``: maximum angle in degrees in either direction, 0 to 180. ``scale``: maximum relative change of size; 0.2
      draws a factor from 1/1.2 to 1.2. ``translation``: maximum shift in either direction as a fraction of width and height,
      0 to 1. Areas outside the image repeat the border pixels. Inputs are interpolated bilinearly; targets use the nearest
      pixel and so keep their values.
    - ``noise``: standard deviation of normal noise on the input, in pixel values; results are clipped to 0 to 255
      for 8-bit images; other values are not clipped.
    """

    flip: str = "none"
    quarter_turns: bool = False
    rotation: float = 0.0
    scale: float = 0.0
    translation: float = 0.0
    noise: float = 0.0

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Augmentation:
        """Return the augmentation for a mapping of some of the fields. Raise one SettingsError that lists all problems."""
        known = [field.name for field in fields(cls)]
        problems = [
            f"{setting('augment')} has no {name!r}; it takes: {', '.join(known)}"
            for name in options
            if name not in known
        ]
        augmentation = cls(**{name: value for name, value in options.items() if name in known})
        if augmentation.flip not in FLIPS:
            problems.append(f"{setting('augment')}: flip={augmentation.flip!r}: choose one of {', '.join(FLIPS)}")
        if not isinstance(augmentation.quarter_turns, bool):
            problems.append(
                f"{setting('augment')}: quarter_turns={augmentation.quarter_turns!r}: must be true or false"
            )
        for name, maximum in (("rotation", 180.0), ("scale", math.inf), ("translation", 1.0), ("noise", math.inf)):
            value = getattr(augmentation, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not 0 <= value <= maximum:
                limit = f", up to {maximum:g}" if maximum < math.inf else ""
                problems.append(f"{setting('augment')}: {name}={value!r}: must be a number from 0{limit}")
        if problems:
            raise SettingsError("; ".join(problems))
        return augmentation

    @property
    def changes(self) -> bool:
        """Return whether any change is enabled."""
        return self != Augmentation()

    def misfits(self, shape: Shape, label_shape: Shape) -> list[str]:
        """Return the problems of applying this augmentation to images of these shapes ``(C, H, W)``."""
        square = shape[1] == shape[2] and label_shape[1] == label_shape[2]
        if self.quarter_turns and not square:
            return [f"{setting('augment')}: quarter_turns: needs square images, not {shape[2]}x{shape[1]}"]
        return []

    def to_json(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults as a plain dict, which :meth:`of` accepts."""
        defaults = asdict(Augmentation())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}

    def pair(self, feature: Array, label: Array, draw: np.random.Generator) -> tuple[Array, Array]:
        """Return one feature and its label, both ``(C, H, W)``, changed at random; dtypes and shapes are kept."""
        # always draw all numbers, so that enabling one change does not alter the others
        flips, turns, unit = draw.random(2) < 0.5, int(draw.integers(4)), draw.uniform(-1, 1, 4)
        if self.flip in ("horizontal", "both") and flips[0]:
            feature, label = feature[:, :, ::-1], label[:, :, ::-1]
        if self.flip in ("vertical", "both") and flips[1]:
            feature, label = feature[:, ::-1], label[:, ::-1]
        if self.quarter_turns:
            feature, label = np.rot90(feature, turns, (1, 2)), np.rot90(label, turns, (1, 2))
        if self.rotation or self.scale or self.translation:
            affine = self._affine(unit)
            feature = _transform(feature, affine, Image.Resampling.BILINEAR)
            label = _transform(label, affine, Image.Resampling.NEAREST)
        if self.noise:
            noisy = feature + draw.normal(0.0, self.noise, feature.shape)
            if feature.dtype == np.uint8:
                noisy = np.clip(np.rint(noisy), 0, 255)
            feature = noisy.astype(feature.dtype)
        return feature, label

    def _affine(self, unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the 2x3 map from result to source coordinates (x, y), relative to the centre, as fractions of the size."""
        angle = math.radians(self.rotation * unit[0])
        factor = (1 + self.scale) ** unit[1]
        linear = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / factor
        return np.column_stack([linear, -linear @ (self.translation * unit[2:])])


class Augmented:
    """Augment the batches of one epoch. The changes to a pair depend only on seed, epoch and its position in the split."""

    def __init__(self, augmentation: Augmentation, seed: int, epoch: int) -> None:
        self.augmentation, self.seed, self.epoch = augmentation, seed, epoch

    def __call__(
        self, features: Array, labels: Array | None, indices: npt.NDArray[np.int64]
    ) -> tuple[Array, Array | None]:
        """Return features and labels ``(N, C, H, W)`` of the pairs at ``indices``, augmented; unchanged without labels."""
        if labels is None:
            return features, None
        pairs = [
            self.augmentation.pair(feature, label, np.random.default_rng((DOMAIN, self.seed, self.epoch, int(index))))
            for feature, label, index in zip(features, labels, indices, strict=True)
        ]
        return np.stack([feature for feature, _ in pairs]), np.stack([label for _, label in pairs])


def _transform(image: Array, affine: npt.NDArray[np.float64], resampling: Image.Resampling) -> Array:
    """Apply an affine map to an image ``(C, H, W)``, repeating border pixels outside of it."""
    _, height, width = image.shape
    # pixels are square: the angle applies to pixel coordinates, the translation is a fraction of each side
    size = np.array([width, height], np.float64)
    linear, shift = affine[:, :2], affine[:, 2] * size
    corners = np.array([[x, y] for x in (-0.5, 0.5) for y in (-0.5, 0.5)]) * size
    reach = np.abs(corners @ linear.T + shift).max(axis=0) - size / 2
    pad = math.ceil(max(0.0, float(reach.max()))) + 1
    offset = shift + size / 2 + pad - linear @ (size / 2)
    coefficients = (*linear[0], offset[0], *linear[1], offset[1])
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    planes = [
        Image.fromarray(plane).transform((width, height), Image.Transform.AFFINE, coefficients, resampling)
        for plane in padded
    ]
    return np.stack([np.asarray(plane, dtype=image.dtype) for plane in planes])
