"""Crops of images with their labels: random ones in training, central ones in validation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiseg.errors import DatasetError, setting

Array = NDArray[Any]
Size = tuple[int, int]  # height, width
Shape = tuple[int, int, int]
NONE = "none"  # no crop, also where the network file states one
CENTRE = "centre"  # of val_crop: validation images are cropped as training images are, in their middle


def read_size(value: Any) -> Size | None:
    """Return (height, width) of a crop: an int, two ints, text such as ``128`` or ``128x160``, or ``none`` for no crop.

    Raises ValueError for anything else.
    """
    if value == NONE:
        return None
    sides = value.split("x") if isinstance(value, str) else value
    if isinstance(sides, int) and not isinstance(sides, bool):
        sides = [sides]
    if not isinstance(sides, (list, tuple)) or not 1 <= len(sides) <= 2:
        raise ValueError(f"{value!r} is no size")
    if not all(isinstance(side, (int, str)) and not isinstance(side, bool) for side in sides):
        raise ValueError(f"{value!r} is no size")
    height, width = int(sides[0]), int(sides[-1])
    if height < 1 or width < 1:
        raise ValueError(f"{value!r} is no size")
    return height, width


def written(size: Sequence[int]) -> str:
    """Return a size (height, width) as a user writes it."""
    return "x".join(map(str, size))


@dataclass(frozen=True)
class Crop:
    """The crop of training images: its size (height, width) in pixels of the input, and how areas outside the image are filled.

    ``feature_fill`` holds a value for each channel, ``label_fill`` is the label that is ignored. If it is None, both repeat the
    border pixels, because there is no label that could stand for nothing.
    """

    size: Size
    feature_fill: tuple[float, ...] = ()
    label_fill: int | None = None


def crop_shapes(size: Size | None, shape: Shape, label_shape: Shape) -> tuple[Shape, Shape]:
    """Return the shapes (C, H, W) of image and label after a crop to ``size``; labels of one pixel are not cropped."""
    if size is None:
        return shape, label_shape
    label_size = label_size_of(size, shape[1:], label_shape[1:])
    return (shape[0], *size), (label_shape[0], *label_size)


def label_size_of(size: Size, image: Size, label: Size) -> Size:
    """Return the size of the label of a crop, where a label of size ``label`` belongs to an image of size ``image``."""
    if label == (1, 1):
        return label
    return size[0] * label[0] // image[0], size[1] * label[1] // image[1]


def steps(image: Size, label: Size) -> Size:
    """Return the multiples of pixels (down, across) at which a crop of an image coincides with whole pixels of its label."""
    if label == (1, 1):
        return 1, 1
    return image[0] // math.gcd(image[0], label[0]), image[1] // math.gcd(image[1], label[1])


def crop_problems(name: str, size: Size | None, shape: Shape, label_shape: Shape) -> list[str]:
    """Return the problems of cropping images of these shapes (C, H, W) as the setting ``name`` requests it."""
    if size is None:
        return []
    image, label = shape[1:], label_shape[1:]
    multiples = steps(image, label)
    if any(side % step for side, step in zip(size, multiples, strict=True)):
        return [
            f"{setting(name, written(size))}: labels are {written(label)} pixels (height x width) for images of "
            f"{written(image)}; choose a multiple of {multiples[0]} as height and a multiple of {multiples[1]} as width"
        ]
    if label == (1, 1) and exceeds(size, image):
        return [
            f"{setting(name, written(size))}: is larger than the images ({written(image)}, height x width), whose labels are "
            f"classes of whole images; choose at most {written([min(pair) for pair in zip(size, image, strict=True)])}"
        ]
    return []


def exceeds(size: Size, image: Sequence[int]) -> bool:
    """Return whether a crop is higher or wider than an image."""
    return size[0] > image[0] or size[1] > image[1]


def random_corner(size: Size, image: Size, multiples: Size, fractions: Sequence[float]) -> Size:
    """Return the first row and column of a crop of an image, from two random numbers from 0 to below 1.

    All places within the image, at whole multiples of ``multiples``, are equally probable. An image that is smaller than the crop
    is placed in its top left corner, as torchvision and mmsegmentation do.
    """
    places = [max(0, whole - side) // step + 1 for whole, side, step in zip(image, size, multiples, strict=True)]
    top, left = (
        int(fraction * count) * step for fraction, count, step in zip(fractions, places, multiples, strict=True)
    )
    return top, left


def cut(image: Array, corner: Size, size: Size, fill: Sequence[float] | None) -> Array:
    """Return the part of ``size`` of an image (C, H, W) from ``corner``; beyond the image ``fill``, or its border for None."""
    part = image[:, corner[0] : corner[0] + size[0], corner[1] : corner[1] + size[1]]
    missing = [(0, side - length) for side, length in zip(size, part.shape[1:], strict=True)]
    if missing == [(0, 0), (0, 0)]:
        return part
    if fill is None:
        return np.pad(part, ((0, 0), *missing), mode="edge")
    padded = np.empty((len(image), *size), image.dtype)
    padded[:] = np.reshape(fill, (-1, 1, 1))
    padded[:, : part.shape[1], : part.shape[2]] = part
    return padded


class CentreCrop:
    """Crop the batches of a validation to their central part, as Caffe's data layers do in phase TEST."""

    def __init__(self, size: Size, source: str) -> None:
        self.size, self.source = size, source

    def __call__(
        self, features: Sequence[Array], labels: Sequence[Array] | None, indices: NDArray[np.int64]
    ) -> tuple[Array, Array | None]:
        """Return the central parts of images and labels (N, C, H, W). Raises DatasetError if an image is too small."""
        for image, index in zip(features, indices, strict=True):
            if exceeds(self.size, image.shape[1:]):
                raise DatasetError(
                    f"{self.source}: image {index} is {written(image.shape[1:])} pixels (height x width), smaller than the "
                    f"central crop of {written(self.size)} that validation uses; choose a smaller {setting('crop')}, or "
                    f"{setting('val_crop', NONE)}"
                )
        if labels is None:
            return np.stack([centre_crop(image, self.size) for image in features]), None
        pairs = [self.pair(image, label) for image, label in zip(features, labels, strict=True)]
        return np.stack([image for image, _ in pairs]), np.stack([label for _, label in pairs])

    def pair(self, image: Array, label: Array) -> tuple[Array, Array]:
        """Return the central part of an image (C, H, W) and the part of its label that belongs to it."""
        whole, label_whole = image.shape[1:], label.shape[1:]
        label_size = label_size_of(self.size, whole, label_whole)
        top, left = _central(self.size, whole, steps(whole, label_whole))
        cropped = cut(image, (top, left), self.size, None)
        if label_whole == (1, 1):
            return cropped, label
        corner = top * label_whole[0] // whole[0], left * label_whole[1] // whole[1]
        return cropped, cut(label, corner, label_size, None)


def centre_crop(image: Array, size: Size, multiples: Size = (1, 1)) -> Array:
    """Return the central part (C, height, width) of an image that is at least as large, from whole multiples of ``multiples``."""
    return cut(image, _central(size, image.shape[1:], multiples), size, None)


def _central(size: Size, image: Sequence[int], multiples: Size = (1, 1)) -> Size:
    """Return the first row and column, rounded down as in Caffe's data_transformer.cpp, and to a multiple."""
    top, left = ((whole - side) // 2 // step * step for whole, side, step in zip(image, size, multiples, strict=True))
    return top, left
