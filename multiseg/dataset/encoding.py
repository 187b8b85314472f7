"""Encode image pairs as Datum records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.encodings import LabelEncoding, RecordEncoding
from multiseg.dataset.label_rules import LabelRules
from multiseg.dataset.label_statistics import LabelStatistics
from multiseg.dataset.records import encoded_datum, raw_datum, values_datum
from multiseg.errors import DatasetError, ImageError, setting
from multiseg.images import (
    MOST_PIXELS,
    Channels,
    Decoded,
    Exif,
    Pixels,
    Values,
    check_pixels,
    decode,
    encode_image,
    image_to_array,
    is_plain_jpeg,
    open_plain_png,
    read_bytes,
    turned,
)

Shape = tuple[int, int, int]
Chunk = list[tuple[str, str]]

MOST_PAIRS = 256  # per chunk


@dataclass(frozen=True)
class EncodingTask:
    """The options shared by all pairs of a dataset, and the files that others are compared with.

    ``shape`` and ``label_shape`` are those of the two files ``first``; ``deep`` states whether the inputs have values of more
    than 8 bits. With ``mixed_sizes`` pairs may differ in height and width, and no mean is computed.
    """

    channels: Channels
    feature_encoding: RecordEncoding
    label_encoding: LabelEncoding
    mixed_sizes: bool
    first: tuple[str, str]
    shape: Shape
    label_shape: Shape
    rules: LabelRules = field(default_factory=LabelRules)
    exif: Exif = "apply"
    deep: bool = False
    max_pixels: int = MOST_PIXELS

    def new_sum(self) -> Sum | None:
        """Return an accumulator for the mean of 8-bit features; None for mixed sizes and for deeper values."""
        return None if self.mixed_sizes or self.deep else Sum(self.shape)


@dataclass(frozen=True)
class Encoded:
    """The encoded records of one chunk, in order, and the statistics of its labels.

    ``oriented`` counts the images that were turned by their EXIF orientation, ``transparent`` those that were laid over white.
    """

    features: list[bytes]
    labels: list[bytes]
    statistics: LabelStatistics
    oriented: int = 0
    transparent: int = 0


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
    oriented = transparent = 0
    for feature_path, label_path in chunk:
        feature_image, feature_record = _record(feature_path, task)
        label_image, label_record = _label_record(label_path, task, statistics)
        feature, label = feature_image.values, label_image.values
        oriented += feature_image.oriented + label_image.oriented
        transparent += feature_image.transparent
        if feature.shape[1:] != label.shape[1:]:
            raise DatasetError(
                f"{feature_path} is {size_text(feature)} and its target {label_path} {size_text(label)}; "
                f"make them the same size{_turned_advice(feature_image, label_image)}"
            )
        _compare(feature, task.shape, feature_path, task.first[0], task.mixed_sizes, "channels")
        _compare(label, task.label_shape, label_path, task.first[1], task.mixed_sizes, "label_channels")
        _compare_depth(feature, task.deep, feature_path, task.first[0])
        features.append(feature_record)
        labels.append(label_record)
        label_pixels.append(label)
        if total is not None:
            total.add(feature)
    paths = [path for _, path in chunk]
    task.rules.check_counts(label_pixels, paths, statistics.count(label_pixels, paths))
    return Encoded(features, labels, statistics, oriented, transparent)


def _turned_advice(feature: Decoded, label: Decoded) -> str:
    if feature.oriented == label.oriented:
        return ""
    return f"; one of them was turned by its EXIF orientation, which {setting('exif', 'ignore')} leaves as it is stored"


def size_text(image: Values) -> str:
    """Return an image's size as ``WIDTHxHEIGHT``."""
    return f"{image.shape[2]}x{image.shape[1]}"


def without_colour(data: bytes, image: Decoded) -> Decoded:
    """Return a WebP image of equal channels as grey, because WebP files have no grey mode; others unchanged."""
    values = image.values
    if data[8:12] == b"WEBP" and len(values) == 3 and (values == values[:1]).all():
        return replace(image, values=values[:1])
    return image


def _record(path: str, task: EncodingTask) -> tuple[Decoded, bytes]:
    data = read_bytes(path)
    check_pixels(data, path, task.max_pixels)
    if task.feature_encoding == "png":
        plain = open_plain_png(data)
        if plain is not None and task.channels in ("none", plain.mode):
            # A plain PNG can be stored unchanged: no re-encoding, which is most of the work.
            pixels = image_to_array(plain)
            return Decoded(pixels), encoded_datum(data, pixels.shape)
    image = decode(data, path, task.channels, exif=task.exif, max_pixels=None)
    if task.shape[0] == 1:
        image = without_colour(data, image)
    values = image.values
    if values.dtype == np.uint8 and task.feature_encoding != "none":
        # a JPEG file that is encoded again loses quality
        keeps = task.feature_encoding == "jpg" and is_plain_jpeg(data, task.channels)
        return image, encoded_datum(data if keeps else encode_image(values, task.feature_encoding), values.shape)
    if task.feature_encoding == "jpg":
        raise ImageError(
            f"{path}: has values of more than 8 bits, which JPEG cannot hold; choose {setting('feature_encoding', 'png')}, "
            "which stores such values as they are"
        )
    return image, values_datum(values)


def read_label(
    path: str, rules: LabelRules, statistics: LabelStatistics, exif: Exif, grey: bool, max_pixels: int = MOST_PIXELS
) -> tuple[Decoded, bytes | None]:
    """Return the label (C, H, W) of a target file, and the file's bytes if they are a PNG with just these values.

    ``grey`` makes a WebP file of equal channels grey. Raises ImageError, which names the file.
    """
    data = read_bytes(path)
    check_pixels(data, path, max_pixels)
    plain = open_plain_png(data)
    if plain is not None and rules.keeps(plain.mode):
        return Decoded(image_to_array(plain)), data
    label = turned(rules.pixels(data, path, statistics), data, path, exif)
    return (without_colour(data, label) if grey else label), None


def _label_record(path: str, task: EncodingTask, statistics: LabelStatistics) -> tuple[Decoded, bytes]:
    label, png = read_label(path, task.rules, statistics, task.exif, task.label_shape[0] == 1, task.max_pixels)
    pixels = label.values
    if task.label_encoding == "none":
        return label, raw_datum(pixels)
    return label, encoded_datum(png or encode_image(pixels, "png"), pixels.shape)


def _compare_depth(image: Values, deep: bool, path: str, first: str) -> None:
    if (image.dtype != np.uint8) != deep:
        depths = ("8-bit", "of more than 8 bits")
        raise ImageError(
            f"{path} is {depths[not deep]} and {first} {depths[deep]}, so their values have different scales; "
            "save all images with one depth"
        )


def _compare(image: Values, shape: Shape, path: str, first: str, mixed_sizes: bool, option: str) -> None:
    """Raise ImageError unless an image fits the first one; ``option`` is the setting that converts it."""
    if image.shape[0] != shape[0]:
        raise ImageError(
            f"{path} is {_kind(image.shape[0])} and {first} {_kind(shape[0])}; choose {option} L or RGB to convert them"
        )
    if not mixed_sizes and image.shape != shape:
        raise ImageError(
            f"{path} is {size_text(image)} and {first} {shape[2]}x{shape[1]}; "
            "make all images one size, or allow mixed sizes"
        )


def _kind(channels: int) -> str:
    return {1: "grey", 3: "RGB"}.get(channels, f"of {channels} channels")


def shape_of(values: Values) -> Shape:
    """Return the shape ``(C, H, W)`` of an image."""
    channels, height, width = values.shape
    return channels, height, width


def pair_bytes(task: EncodingTask) -> int:
    """Return the number of pixel bytes in the first pair."""
    return math.prod(task.shape) * (4 if task.deep else 1) + math.prod(task.label_shape)
