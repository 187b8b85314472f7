"""Read features and labels from LMDB databases of Datum records."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.lmdb_file import LmdbFile
from multiseg.dataset.names import FEATURES, LABELS
from multiseg.dataset.records import datum_pixels, parse_datum
from multiseg.errors import DatasetError

Array = NDArray[Any]
Shape = tuple[int, int, int]
Pair = tuple[Array, Array | None]  # feature and label (C, H, W)

_SAMPLES = 16  # records read to determine whether images differ in size


class Kept(Protocol):
    """Decoded pairs of a split by position, which are not decoded again."""

    def get(self, index: int) -> Pair | None:
        """Return a pair, which may be read-only; None if it is not kept."""

    def put(self, index: int, pair: Pair) -> None:
        """Keep a pair, if there is space."""


class Split:
    """Access features and their labels by position. Safe to use from several threads, and after a fork.

    ``features`` and ``labels`` are LMDB folders. Without a labels database, the label is the class index stored in the
    features' records, as ``(1, 1, 1)`` int32, or None if they have none. Without ``features`` the split is empty.
    ``mixed`` states whether images differ in size; None reads a sample of the records to determine it. Raises DatasetError
    if a database cannot be read.
    """

    def __init__(
        self,
        name: str,
        features: str | os.PathLike[str] | None,
        labels: str | os.PathLike[str] | None = None,
        mixed: bool | None = None,
    ) -> None:
        self.name = name
        self._arguments = (name, features, labels, mixed)
        self._features = None if features is None else LmdbFile(features)
        self._labels = None if labels is None else LmdbFile(labels)
        self._mixed = mixed

    def __len__(self) -> int:
        return 0 if self._features is None else len(self._features)

    def __repr__(self) -> str:
        return f"<Split {self.name}: {len(self)} pairs of shape {self.shape}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments

    def __getitem__(self, index: int) -> tuple[Array, Array | None]:
        """Return feature and label at ``index``: ``(C, H, W)`` uint8 RGB, float32 where floats are stored.

        Raises IndexError for an index out of range, and DatasetError for a record that cannot be read.
        """
        feature, label = self._pair(index)
        self.check_unchanged()
        return feature.copy(), None if label is None else label.copy()

    def read(self, indices: Sequence[int] | NDArray[np.int64], kept: Kept | None = None) -> tuple[Array, Array | None]:
        """Return the pairs at ``indices`` as ``(N, C, H, W)`` arrays. Raise DatasetError if they differ in shape."""
        if not len(indices):
            return _empty(self.shape), _empty(self.label_shape)
        features, labels = self.pairs(indices, kept)
        return self._stack(features), None if labels is None else self._stack(labels)

    def pairs(
        self, indices: Sequence[int] | NDArray[np.int64], kept: Kept | None = None
    ) -> tuple[Sequence[Array], Sequence[Array] | None]:
        """Return the features and labels ``(C, H, W)`` at ``indices``, which may be read-only; None without labels.

        Pairs are taken from ``kept``, and those that are not there are put there.
        """
        features, labels = zip(*(self._kept_pair(int(index), kept) for index in indices), strict=True)
        self.check_unchanged()
        return features, None if labels[0] is None else labels

    def feature(self, index: int) -> Array:
        """Return the feature at ``index``, (C, H, W); its label is not read."""
        if self._features is None or not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} pairs; index {index} is out of range")
        return _load(self._features, index)[1]

    def label(self, index: int) -> Array | None:
        """Return the label at ``index``, (C, H, W), None without labels; the feature is not decoded if labels are apart."""
        if self._labels is None or self._features is None:
            return self._pair(index)[1]
        return _load(self._labels, self._label_position(index))[1]

    def label_record(self, index: int) -> str:
        """Return the database and the key of the label at ``index``, for messages."""
        assert self._features is not None
        records = self._labels or self._features
        position = index if self._labels is None else self._label_position(index)
        return f"{records.path}: record {records.key(position).decode(errors='replace')}"

    @property
    def path(self) -> Path | None:
        """The database of the features; None for an empty split."""
        return None if self._features is None else self._features.path

    @cached_property
    def shape(self) -> Shape | None:
        """Return the shape ``(C, H, W)`` of the features; None for mixed sizes, and for an empty split."""
        return self._shapes[0]

    @cached_property
    def label_shape(self) -> Shape | None:
        """Return the shape ``(C, H, W)`` of the labels; None for mixed sizes, for an empty split, and without labels."""
        return self._shapes[1]

    @property
    def labelled_in_records(self) -> bool:
        """Whether the labels are class indices in the features' own records, as in DIGITS' classification datasets."""
        if self._features is None or self._labels is not None or not len(self):
            return False
        return bool(_load(self._features, 0)[0].HasField("label"))

    def check_unchanged(self) -> None:
        """Raise DatasetError if a database was written to since it was opened: records may be a mixture."""
        for records in (self._features, self._labels):
            if records is not None:
                records.check_unchanged()

    def _kept_pair(self, index: int, kept: Kept | None) -> Pair:
        pair = None if kept is None else kept.get(index)
        if pair is None:
            pair = self._pair(index)
            if kept is not None:
                kept.put(index, pair)
        return pair

    def _pair(self, index: int) -> Pair:
        """Return feature and label, which may be read-only views."""
        position = index + len(self) if index < 0 else index
        if self._features is None or not 0 <= position < len(self):
            raise IndexError(f"{self.name} has {len(self)} pairs; index {index} is out of range")
        datum, feature = _load(self._features, position)
        if self._labels is not None:
            return feature, _load(self._labels, self._label_position(position))[1]
        if datum.HasField("label"):
            return feature, np.full((1, 1, 1), datum.label, np.int32)
        return feature, None

    @cached_property
    def _shapes(self) -> tuple[Shape | None, Shape | None]:
        if not len(self) or self._mixed:
            return None, None
        positions = np.linspace(0, len(self) - 1, 1 if self._mixed is False else _SAMPLES).astype(int)
        pairs = [self._pair(position) for position in sorted(set(positions.tolist()))]
        shapes = {feature.shape for feature, _ in pairs}
        label_shapes = {None if label is None else label.shape for _, label in pairs}
        return shapes.pop() if len(shapes) == 1 else None, label_shapes.pop() if len(label_shapes) == 1 else None

    @cached_property
    def _label_positions(self) -> NDArray[np.int64] | None:
        """Return the position of each feature's label, -1 if missing; None if the keys of both are consecutive numbers."""
        assert self._features is not None and self._labels is not None
        if self._features.has_counting_keys and self._labels.has_counting_keys:
            return None
        by_key = {key: position for position, key in enumerate(self._labels.walk_keys())}
        positions = (by_key.get(key, -1) for key in self._features.walk_keys())
        return np.fromiter(positions, np.int64, len(self._features))

    def _label_position(self, position: int) -> int:
        assert self._features is not None and self._labels is not None
        positions = self._label_positions
        label_position = position if positions is None else int(positions[position])
        if not 0 <= label_position < len(self._labels):
            key = self._features.key(position).decode(errors="replace")
            raise DatasetError(f"{self._labels.path}: has no label for the key {key}; create the dataset again")
        return label_position

    def _stack(self, images: Sequence[Array]) -> Array:
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            raise DatasetError(
                f"{self.name}: images of different shapes ({', '.join(map(str, sorted(shapes)))}) cannot form a batch; "
                "read them one by one"
            )
        return np.stack(images)


INNER = ("features", "val_db/features")  # databases that a folder around them stands for


def open_split(path: str | os.PathLike[str]) -> Split:
    """Open one database such as ``val_db/features``, with the labels database beside it if there is one.

    The folder of a split, ``val_db``, stands for its features, that of a dataset for its validation images. Raises DatasetError
    if the database is missing or damaged.
    """
    features = Path(path)
    if not features.exists():
        raise DatasetError(f"{features}: no such database")
    features = next((inner for name in INNER if (inner := features / name).is_dir()), features)
    if features.is_dir() and not (features / "data.mdb").exists():
        raise DatasetError(f"{features}: has no data.mdb; specify a database, such as DATASET/val_db/features")
    labels = features.parent / LABELS
    has_labels = features.name == FEATURES and labels.is_dir()
    return Split(f"{features.parent.name}/{features.name}", features, labels if has_labels else None)


def mean_of_records(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Return the mean ``(C, H, W)`` of the images of a database, summed in float64 in the order of the records.

    Raises DatasetError if one cannot be read.
    """
    records = LmdbFile(path)
    total = np.zeros_like(_load(records, 0)[1], dtype=np.float64)
    for position in range(len(records)):
        total += _load(records, position)[1]
    mean: NDArray[np.float32] = (total / len(records)).astype(np.float32)
    return mean


def _load(records: LmdbFile, position: int) -> tuple[Any, Array]:
    """Parse the record at ``position``; return it and its image."""
    record = records[position]
    try:
        datum = parse_datum(record)
        return datum, datum_pixels(datum, record)
    except DatasetError as error:
        key = records.key(position).decode(errors="replace")
        raise DatasetError(f"{records.path}: record {key} {error}") from None


def _empty(shape: Shape | None) -> Array:
    return np.empty((0, *(shape or (0, 0, 0))), np.uint8)
