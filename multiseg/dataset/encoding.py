"""Encode image pairs as Datum records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.label_rules import LabelRules
from multiseg.dataset.label_statistics import LabelStatistics
from multiseg.dataset.records import encoded_datum, raw_datum
from multiseg.errors import DatasetError, ImageError
from multiseg.images import Channels, Pixels, decode_image, encode_image, image_to_array, open_plain_png, read_bytes

RecordEncoding = Literal["none", "png", "jpg"]
Shape = tuple[int, int, int]
Chunk = list[tuple[str, str]]

MOST_PAIRS = 256  # per chunk


@dataclass(frozen=True)
class EncodingTask:
    """The options shared by all pairs of a dataset. ``shape`` and ``label_shape`` are those of the first pair.

    With ``mixed_sizes`` pairs may differ in height and width, and no mean is computed.
    """

    channels: Channels
    feature_encoding: RecordEncoding
    label_encoding: RecordEncoding
    mixed_sizes: bool
    first: tuple[str, str]
    shape: Shape
    label_shape: Shape
    rules: LabelRules = field(default_factory=LabelRules)

    def new_sum(self) -> Sum | None:
        """Return an accumulator for the mean of the features; None for mixed sizes."""
        return None if self.mixed_sizes else Sum(self.shape)


@dataclass(frozen=True)
class Encoded:
    """The encoded records of one chunk, in order, and the statistics of its labels."""

    features: list[bytes]
    labels: list[bytes]
    statistics: LabelStatistics


class Sum:
    """Exact sum of images ``(C, H, W)`` uint8, independent of how the images are divided among processes."""

    def __init__(self, shape: Shape) -> None:
        self._whole = np.zeros(shape, np.uint64)
        self._part = np.zeros(shape, np.uint16)  # 257 bytes fit in 16 bits, which add much faster than 64
        self._count = 0

    def add(self, image: Pixels) -> None:
        """Add an image."""
        self._part += image
        self._count += 1
        if self._count == 257:
            self._fold()

    def take(self) -> NDArray[np.uint64]:
        """Return the sum and reset it to zero."""
        self._fold()
        whole, self._whole = self._whole, np.zeros_like(self._whole)
        return whole

    def _fold(self) -> None:
        self._whole += self._part
        self._part[:] = 0
        self._count = 0


def encode(task: EncodingTask, chunk: Chunk, total: Sum | None) -> Encoded:
    """Encode a chunk of pairs and add its features to ``total``.

    Raises ImageError or DatasetError that names the first invalid file.
    """
    features, labels, label_pixels = [], [], []
    statistics = LabelStatistics()
    for feature_path, label_path in chunk:
        feature, feature_record = _record(feature_path, task.channels, task.feature_encoding)
        label, label_record = _label_record(label_path, task, statistics)
        if feature.shape[1:] != label.shape[1:]:
            raise DatasetError(
                f"{feature_path} is {size_text(feature)} and its target {label_path} {size_text(label)}; "
                "make them the same size"
            )
        _compare(feature, task.shape, feature_path, task.first[0], task.mixed_sizes, "channels")
        _compare(label, task.label_shape, label_path, task.first[1], task.mixed_sizes, "label_channels")
        features.append(feature_record)
        labels.append(label_record)
        label_pixels.append(label)
        if total is not None:
            total.add(feature)
    counts = statistics.count(label_pixels)
    task.rules.check_counts(label_pixels, [path for _, path in chunk], counts)
    return Encoded(features, labels, statistics)


def size_text(image: Pixels) -> str:
    """Return an image's size as ``WIDTHxHEIGHT``."""
    return f"{image.shape[2]}x{image.shape[1]}"


def _record(path: str, channels: Channels, encoding: RecordEncoding) -> tuple[Pixels, bytes]:
    data = read_bytes(path)
    if encoding == "png":
        plain = open_plain_png(data)
        if plain is not None and channels in ("none", plain.mode):
            # A plain PNG can be stored unchanged: no re-encoding, which is most of the work.
            pixels = image_to_array(plain)
            return pixels, encoded_datum(data, pixels.shape)
    pixels = decode_image(data, path, channels)
    if encoding == "none":
        return pixels, raw_datum(pixels)
    return pixels, encoded_datum(encode_image(pixels, encoding), pixels.shape)


def read_label(path: str, rules: LabelRules, statistics: LabelStatistics) -> tuple[Pixels, bytes | None]:
    """Return the label (C, H, W) of a target file, and the file's bytes if they are a PNG with just these values.

    Raises ImageError, which names the file.
    """
    data = read_bytes(path)
    plain = open_plain_png(data)
    if plain is not None and rules.keeps(plain.mode):
        return image_to_array(plain), data
    return rules.pixels(data, path, statistics), None


def _label_record(path: str, task: EncodingTask, statistics: LabelStatistics) -> tuple[Pixels, bytes]:
    pixels, png = read_label(path, task.rules, statistics)
    if task.label_encoding == "none":
        return pixels, raw_datum(pixels)
    return pixels, encoded_datum(png or encode_image(pixels, "png"), pixels.shape)


def _compare(image: Pixels, shape: Shape, path: str, first: str, mixed_sizes: bool, option: str) -> None:
    """Raise ImageError unless an image fits the first one; ``option`` is the setting that converts it."""
    if image.shape[0] != shape[0]:
        kind = {1: "grey", 3: "RGB"}
        raise ImageError(
            f"{path} is {kind[image.shape[0]]} and {first} {kind[shape[0]]}; choose {option} L or RGB to convert them"
        )
    if not mixed_sizes and image.shape != shape:
        raise ImageError(
            f"{path} is {size_text(image)} and {first} {shape[2]}x{shape[1]}; "
            "make all images one size, or allow mixed sizes"
        )


def pair_bytes(task: EncodingTask) -> int:
    """Return the number of pixel bytes in the first pair."""
    return math.prod(task.shape) + math.prod(task.label_shape)
