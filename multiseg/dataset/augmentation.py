"""Changes of training images, drawn anew in each epoch: what moves moves input and target together, noise is the input's alone.

Flips and quarter turns are NumPy's, which move pixels without changing them. Rotation, scale and translation are one affine
map by Pillow, a dependency anyway, so that pixels are interpolated once. Libraries made for it (albumentations, imgaug,
torchvision) bring OpenCV or a framework along for no more than that.
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
DOMAIN = 0x617567  # keeps these random numbers apart from those of the images' order


@dataclass(frozen=True)
class Augmentation:
    """How far images may be changed; without any of them they stay as they are.

    - ``flip``: ``horizontal`` (left to right), ``vertical``, or ``both``, each in half of the cases.
    - ``quarter_turns``: by 0, 90, 180 or 270 degrees alike; square images only.
    - ``rotation``: up to so many degrees either way, 0 to 180; ``scale``: larger or smaller by up to that factor, 0.2 being
      1/1.2 to 1.2; ``translation``: up to that part of width and height either way, 0 to 1. What comes into view is the
      border's pixels repeated. Inputs are interpolated, targets take the nearest pixel and so keep their values.
    - ``noise``: standard deviation of normal noise on the input, in the pixels' unit; results stay within 0 to 255.
    """

    flip: str = "none"
    quarter_turns: bool = False
    rotation: float = 0.0
    scale: float = 0.0
    translation: float = 0.0
    noise: float = 0.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Augmentation:
        """From a mapping of some of the fields. Raises one SettingsError for all that is wrong."""
        known = [each.name for each in fields(cls)]
        problems = [
            f"{setting('augment')} has no {name!r}; it takes: {', '.join(known)}" for name in given if name not in known
        ]
        made = cls(**{name: value for name, value in given.items() if name in known})
        if made.flip not in FLIPS:
            problems.append(f"{setting('augment')}: flip={made.flip!r}: choose one of {', '.join(FLIPS)}")
        if not isinstance(made.quarter_turns, bool):
            problems.append(f"{setting('augment')}: quarter_turns={made.quarter_turns!r}: must be true or false")
        for name, most in (("rotation", 180.0), ("scale", math.inf), ("translation", 1.0), ("noise", math.inf)):
            value = getattr(made, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not 0 <= value <= most:
                limit = f", up to {most:g}" if most < math.inf else ""
                problems.append(f"{setting('augment')}: {name}={value!r}: must be a number from 0{limit}")
        if problems:
            raise SettingsError("; ".join(problems))
        return made

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self != Augmentation()

    def misfits(self, shape: Shape, label_shape: Shape) -> list[str]:
        """What images of these shapes (C, H, W) cannot have done to them."""
        square = shape[1] == shape[2] and label_shape[1] == label_shape[2]
        if self.quarter_turns and not square:
            return [f"{setting('augment')}: quarter_turns: needs square images, not {shape[2]}x{shape[1]}"]
        return []

    def to_json(self) -> dict[str, Any]:
        """Plain dict of what differs from no change, as :meth:`of` takes it."""
        none = asdict(Augmentation())
        return {name: value for name, value in asdict(self).items() if value != none[name]}

    def pair(self, feature: Array, label: Array, draw: np.random.Generator) -> tuple[Array, Array]:
        """One feature and its label, both (C, H, W), changed by what ``draw`` gives; dtypes and shapes stay."""
        # all numbers are drawn whatever is switched on: switching one on leaves the others as they were
        flips, turns, unit = draw.random(2) < 0.5, int(draw.integers(4)), draw.uniform(-1, 1, 4)
        if self.flip in ("horizontal", "both") and flips[0]:
            feature, label = feature[:, :, ::-1], label[:, :, ::-1]
        if self.flip in ("vertical", "both") and flips[1]:
            feature, label = feature[:, ::-1], label[:, ::-1]
        if self.quarter_turns:
            feature, label = np.rot90(feature, turns, (1, 2)), np.rot90(label, turns, (1, 2))
        if self.rotation or self.scale or self.translation:
            map_of = self._affine(unit)
            feature = _moved(feature, map_of, Image.Resampling.BILINEAR)
            label = _moved(label, map_of, Image.Resampling.NEAREST)
        if self.noise:
            noisy = feature + draw.normal(0.0, self.noise, feature.shape)
            feature = np.clip(np.rint(noisy) if feature.dtype == np.uint8 else noisy, 0, 255).astype(feature.dtype)
        return feature, label

    def _affine(self, unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The 2x3 map from a place in the result to that in the image, in parts of the size from the middle (x, y)."""
        angle = math.radians(self.rotation * unit[0])
        factor = (1 + self.scale) ** unit[1]
        turned = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]) / factor
        return np.column_stack([turned, -turned @ (self.translation * unit[2:])])


class Augmented:
    """Changes batches of one epoch; what is drawn for a pair depends on seed, epoch and its position in the split alone."""

    def __init__(self, augmentation: Augmentation, seed: int, epoch: int) -> None:
        self.augmentation, self.seed, self.epoch = augmentation, seed, epoch

    def __call__(
        self, features: Array, labels: Array | None, indices: npt.NDArray[np.int64]
    ) -> tuple[Array, Array | None]:
        """Features and labels (N, C, H, W) of the pairs at ``indices``, changed. Without labels nothing is."""
        if labels is None:
            return features, None
        pairs = [
            self.augmentation.pair(feature, label, np.random.default_rng((DOMAIN, self.seed, self.epoch, int(index))))
            for feature, label, index in zip(features, labels, indices, strict=True)
        ]
        return np.stack([feature for feature, _ in pairs]), np.stack([label for _, label in pairs])


def _moved(image: Array, map_of: npt.NDArray[np.float64], resampling: Image.Resampling) -> Array:
    """``image`` (C, H, W) seen through the map, its border's pixels repeated outside."""
    _, height, width = image.shape
    # pixels are square: the angle is that in pixels, the translation that in parts of each side
    size = np.array([width, height], np.float64)
    linear, shift = map_of[:, :2], map_of[:, 2] * size
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
