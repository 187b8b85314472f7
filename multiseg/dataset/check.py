"""Validate a dataset folder."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiseg.dataset.dataset import Dataset, read_mean
from multiseg.dataset.description import combined_hash, is_as_written, read_description
from multiseg.dataset.label_check import LabelCheck, label_lines
from multiseg.dataset.labels import Labels
from multiseg.dataset.lmdb_file import LmdbFile
from multiseg.dataset.names import DATABASES, FEATURES, FILE, LABELS, MEAN, TRAIN, VAL
from multiseg.dataset.records import datum_pixels, parse_datum
from multiseg.dataset.writing import hash_record
from multiseg.errors import DatasetError
from multiseg.files import sha256_of

_MAX_LISTED = 10  # records named per kind of problem

Progress = Callable[[int, int], None]


@dataclass
class Report:
    """The result of a check: ``problems`` (empty for a valid dataset), the record count of each database, the content hash.

    ``values`` has, for each database, the type, minimum, maximum and mean of all values of its readable images.
    """

    path: Path
    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    content_hash: str | None = None
    labels: Labels = field(default_factory=Labels)
    label_checks: dict[str, LabelCheck] = field(default_factory=dict)
    values: dict[str, dict[str, str | float]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Return whether no problem was found."""
        return not self.problems

    @property
    def label_lines(self) -> list[str]:
        """Return a description of the labels in lines, e.g. the pixels of each class in each split."""
        return label_lines(self.labels, self.label_checks)


def check_dataset(folder: str | os.PathLike[str], progress: Progress | None = None) -> Report:
    """Read every record of a dataset folder, of multiseg or of DIGITS, and report all problems.

    Labels of one number, as for classification, have no size of their own, and class indices beyond the stated classes are
    problems. ``labels`` and ``label_checks`` of the report have the kind of the labels and the counts of their values.
    Checks that counts and keys of features and labels agree, that each record decodes and has the shape it declares,
    that sizes agree, that the mean image exists and has the right shape, and that the hashes stored at creation match.
    Raises DatasetError only if there is nothing to check: no folder, or no training features in it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise DatasetError(f"{path}: no such dataset folder")
    if not (path / DATABASES[0]).is_dir():
        raise DatasetError(f"{path}: is not a dataset: {path / DATABASES[0]} is missing")
    report = Report(path)
    try:
        description = read_description(path) or {}
    except DatasetError as error:
        report.problems.append(str(error))
        description = {}
    opened = _open_all(report)
    with suppress(DatasetError):  # of records that cannot be read, which are reported below
        report.labels = Dataset.open(path).labels
    scans = _scan_all(opened, report, progress)
    report.counts = {name: len(scan.keys) for name, scan in scans.items()}
    report.content_hash = combined_hash({name: scan.digest for name, scan in scans.items()})
    for split in (TRAIN, VAL):
        features, labels = scans.get(f"{split}/{FEATURES}"), scans.get(f"{split}/{LABELS}")
        if features is not None and labels is not None:
            _compare(split, features, labels, report)
    mixed = bool(description.get("mixed_sizes"))
    if not mixed:
        _check_sizes(scans, report)
    _check_mean(path, scans.get(DATABASES[0]), mixed, report)
    _check_hashes(description, scans, report)
    if description and not is_as_written(path):
        report.problems.append(f"{FILE}: has changed since creation (SHA-256 differs)")
    return report


@dataclass
class _Scan:
    """The content of one database: keys, shapes ``(N, 3)`` with zeros for unreadable records, and hash."""

    keys: list[bytes]
    shapes: NDArray[np.int64]
    digest: str


class _Problems:
    """Problems of one kind; only the first few are listed one by one."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._count = 0

    def add(self, problem: str) -> None:
        self._count += 1
        if self._count <= _MAX_LISTED:
            self._report.problems.append(problem)

    def close(self, where: str, what: str) -> None:
        if self._count > _MAX_LISTED:
            self._report.problems.append(f"{where}: {self._count - _MAX_LISTED} more {what}")


def _open_all(report: Report) -> dict[str, LmdbFile]:
    opened = {}
    for name in DATABASES:
        if (report.path / name).is_dir():
            try:
                opened[name] = LmdbFile(report.path / name)
            except DatasetError as error:
                report.problems.append(str(error))
    return opened


def _scan_all(opened: dict[str, LmdbFile], report: Report, progress: Progress | None) -> dict[str, _Scan]:
    total = sum(map(len, opened.values()))
    done = 0
    scans = {}
    for name, records in opened.items():
        unreadable, invalid = _Problems(report), _Problems(report)
        labels = LabelCheck(report.labels)
        values = _Range()
        digest = hashlib.sha256()
        shapes = np.zeros((len(records), 3), np.int64)
        keys = list(records.walk_keys())
        if not keys:
            report.problems.append(f"{name}: contains no records")
        for position, key in enumerate(keys):
            try:
                record = records[position]
                hash_record(digest, key, record)
                pixels, number = _content_of(record)
                shapes[position] = pixels.shape
                values.add(pixels)
                if name.endswith("/labels") or (
                    number is not None and f"{name.partition('/')[0]}/labels" not in opened
                ):
                    problem = labels.add(pixels if name.endswith("/labels") else np.array([number]))
                    if problem is not None:
                        invalid.add(f"{name}: record {_text(key)} {problem}")
            except DatasetError as error:
                unreadable.add(f"{name}: record {_text(key)} {error}")
            done += 1
            if progress is not None and (done % 256 == 0 or done == total):
                progress(done, total)
        unreadable.close(name, "records cannot be read")
        invalid.close(name, "records have other classes")
        if labels.high >= labels.low:
            report.label_checks[name.partition("/")[0]] = labels
        try:
            records.check_unchanged()
        except DatasetError as error:
            report.problems.append(str(error))
        if values.not_finite:
            report.problems.append(
                f"{name}: {values.not_finite} values are NaN or infinite; create it again without them"
            )
        if values.count:
            report.values[name] = values.to_json()
        scans[name] = _Scan(keys, shapes, digest.hexdigest())
    return scans


@dataclass
class _Range:
    """The smallest, largest and summed finite values of images, their number, the number of others, and the images' types."""

    low: float = math.inf
    high: float = -math.inf
    total: float = 0.0
    count: int = 0
    not_finite: int = 0
    types: set[str] = field(default_factory=set)

    def add(self, image: NDArray[Any]) -> None:
        finite = image if image.dtype.kind in "ui" else image[np.isfinite(image)]
        self.types.add(image.dtype.name)
        self.not_finite += image.size - finite.size
        if finite.size:
            self.low, self.high = min(self.low, float(finite.min())), max(self.high, float(finite.max()))
            self.total += float(finite.sum(dtype=np.float64))
            self.count += finite.size

    def to_json(self) -> dict[str, str | float]:
        mean = self.total / self.count
        return {"type": " and ".join(sorted(self.types)), "minimum": self.low, "maximum": self.high, "mean": mean}


def _content_of(record: bytes) -> tuple[NDArray[Any], int | None]:
    """Return a record's image, and its class index if it has one. Raise DatasetError if it is damaged."""
    datum = parse_datum(record)
    pixels = datum_pixels(datum, record)
    shape = pixels.shape
    declared = (datum.channels, datum.height, datum.width)
    if any(declared) and declared != shape:  # Caffe's own tools do not set the shape of encoded records
        raise DatasetError(f"declares the shape {_shape_text(declared)}, its image has {_shape_text(shape)}")
    return pixels, datum.label if datum.HasField("label") else None


def _compare(split: str, features: _Scan, labels: _Scan, report: Report) -> None:
    if len(features.keys) != len(labels.keys):
        report.problems.append(f"{split}: {len(features.keys)} features and {len(labels.keys)} labels")
    position_of = {key: position for position, key in enumerate(labels.keys)}
    unpaired, mismatched = _Problems(report), _Problems(report)
    for position, key in enumerate(features.keys):
        label_position = position_of.pop(key, None)
        if label_position is None:
            unpaired.add(f"{split}: feature {_text(key)} has no label")
            continue
        shape, label_shape = features.shapes[position], labels.shapes[label_position]
        one_number = tuple(label_shape[1:]) == (1, 1)
        if shape.any() and label_shape.any() and not one_number and not np.array_equal(shape[1:], label_shape[1:]):
            mismatched.add(f"{split}: feature {_text(key)} is {_size_text(shape)}, its label {_size_text(label_shape)}")
    for key in position_of:
        unpaired.add(f"{split}: label {_text(key)} has no feature")
    unpaired.close(split, "records have no partner")
    mismatched.close(split, "pairs differ in size")


def _check_sizes(scans: dict[str, _Scan], report: Report) -> None:
    """Report records whose shape differs from that of the training database's first readable record."""
    for kind in (FEATURES, LABELS):
        expected: NDArray[np.int64] | None = None
        for name in (f"{TRAIN}/{kind}", f"{VAL}/{kind}"):
            scan = scans.get(name)
            if scan is None:
                continue
            readable = scan.shapes.any(axis=1)
            if not readable.any():
                continue
            if expected is None:
                expected = scan.shapes[readable][0]
            mismatched = _Problems(report)
            for position in np.flatnonzero(readable & (scan.shapes != expected).any(axis=1)).tolist():
                shape = _shape_text(scan.shapes[position])
                mismatched.add(
                    f"{name}: record {_text(scan.keys[position])} has the shape {shape}, "
                    f"the first has {_shape_text(expected)}"
                )
            mismatched.close(name, "records of other shapes")


def _check_mean(path: Path, features: _Scan | None, mixed: bool, report: Report) -> None:
    if not (path / MEAN).exists():
        if not mixed:
            report.problems.append(f"{MEAN}: is missing")
        return
    try:
        mean = read_mean(path)
    except DatasetError as error:
        if str(error) not in report.problems:
            report.problems.append(str(error))
        return
    if mean is not None and features is not None and features.shapes.any():
        shape = features.shapes[features.shapes.any(axis=1)][0]
        if not np.array_equal(mean.shape, shape):
            report.problems.append(f"{MEAN}: has the shape {_shape_text(mean.shape)}, the images {_shape_text(shape)}")


def _check_hashes(description: dict[str, Any], scans: dict[str, _Scan], report: Report) -> None:
    stored = description.get("databases")
    if stored is None:
        return
    if description.get("content_hash") not in (None, combined_hash(stored)):
        report.problems.append(f"{FILE}: is damaged: its content_hash is not that of its databases")
    for name, digest in (description.get("files") or {}).items():
        path, database = report.path / name, name.removesuffix("/data.mdb")
        if name == MEAN or not os.path.isdir(path.parent):  # noqa: PTH112 - False, too, for what cannot be a name; the mean is checked with its shape
            continue
        if database != name and (database not in scans or scans[database].digest != stored.get(database)):
            continue  # reported below
        if not (os.path.isfile(path) and sha256_of(path) == digest):  # noqa: PTH113
            report.problems.append(f"{name}: is missing, or has changed since creation (SHA-256 differs)")
    for name, digest in stored.items():
        if name not in scans:
            if not os.path.isdir(report.path / name):  # noqa: PTH112
                report.problems.append(f"{name}: is missing")
        elif scans[name].digest != digest:
            report.problems.append(f"{name}: its content has changed since creation (SHA-256 differs)")


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


def _shape_text(shape: object) -> str:
    return "x".join(str(int(value)) for value in shape)  # type: ignore[attr-defined]


def _size_text(shape: NDArray[np.int64]) -> str:
    return f"{shape[2]}x{shape[1]}"
