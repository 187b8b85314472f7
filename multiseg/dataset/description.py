"""Read and write dataset.json, multiseg's description in a dataset folder, and compute the content hash."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiseg.dataset.lmdb_file import LmdbFile
from multiseg.dataset.names import DATABASES, FILE
from multiseg.dataset.writing import hash_record
from multiseg.errors import DatasetError
from multiseg.files import parse_json, read_bytes
from multiseg.schema import (
    ANY,
    FLAG,
    NUMBER,
    SHAPE,
    TEXT,
    WHOLE,
    Kind,
    Schema,
    list_of,
    mapping_of,
    optional,
    or_none,
    problem,
)

_FORMAT = {"format": "multiseg dataset", "version": 1}
_SUM = "sum"  # last key of the file: the SHA-256 of the rest of it
_HASH = Kind("a SHA-256", lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None)
_COUNTS = mapping_of(WHOLE, "an object of counts")
_VALUE_COUNTS = Kind(
    "an object of counts by value",
    lambda value: _COUNTS.valid(value) and all(re.fullmatch("[0-9]{1,9}", key) for key in value),
)
_VALUES: Schema = {  # of the file; what earlier versions did not write is optional
    **{key: optional(or_none(TEXT)) for key in ("input", "target", "val_input", "val_target", "voc")},
    **{
        key: optional(TEXT)
        for key in (
            "channels",
            "label_channels",
            "feature_encoding",
            "label_encoding",
            "exif",
            "values",
            "input_ending",
            "target_ending",
        )
    },
    "val_percent": optional(
        Kind("a number", lambda value: NUMBER.valid(value) or TEXT.valid(value))
    ),  # perhaps as text
    "mixed_sizes": optional(FLAG),
    "max_pixels": optional(WHOLE),
    "seed": optional(or_none(Kind("a whole number", lambda value: type(value) is int))),  # of any size
    "labels": optional(ANY),  # checked by Labels.from_json
    "label_values": optional(mapping_of(_VALUE_COUNTS, "an object of counts by value")),
    "warnings": optional(list_of(TEXT, "a list of texts")),
    "label_map": optional(_COUNTS),
    "applied": optional(_COUNTS),
    "left_out": optional(mapping_of(_COUNTS, "an object of counts")),
    **{f"{split}.count": optional(WHOLE) for split in ("train", "val")},
    **{f"{split}.{key}": optional(or_none(SHAPE)) for split in ("train", "val") for key in ("shape", "label_shape")},
    "databases": optional(mapping_of(_HASH, "an object of SHA-256")),
    "files": optional(mapping_of(_HASH, "an object of SHA-256")),
    "content_hash": optional(_HASH),
}
_KEYS = {*_FORMAT, *(key.partition(".")[0] for key in _VALUES)}


def write_description(folder: Path, content: dict[str, Any], sums: dict[str, str]) -> None:
    """Write the description of a new dataset, with the SHA-256 of its databases' files and of its mean images.

    The last entry is the sum of the description itself.
    """
    (folder / FILE).write_text(_text({**_FORMAT, **content, "files": sums}), encoding="utf-8")


def _text(content: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in content.items() if key != _SUM}
    total = hashlib.sha256(json.dumps(rest).encode()).hexdigest()
    return json.dumps({**rest, _SUM: total}, indent=2) + "\n"


def is_as_written(folder: Path) -> bool:
    """Return whether a description is that with which the dataset was created. Raises OSError and ValueError if it is unreadable.

    One of an earlier version has no sum, and counts as unchanged if it has no unknown keys.
    """
    text = read_bytes(folder / FILE).decode()
    content = parse_json(text)
    return set(content) <= _KEYS or text == _text(content)


def read_description(folder: Path) -> dict[str, Any] | None:
    """Return a dataset's description; None if there is none, as in DIGITS' own folders.

    Raises DatasetError if it cannot be read or has an unknown version.
    """
    path = folder / FILE
    try:
        text = read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error}); remove it to open the dataset without it") from error
    return parse_description(text, str(path))


def recorded_sum(folder: Path, name: str) -> str | None:
    """Return the SHA-256 of a file of a dataset at its creation, from its description; None if it is not recorded there.

    ``name`` is the path relative to the folder. Datasets that earlier versions created record the sums of their databases only.
    """
    files = (read_description(folder) or {}).get("files")
    stored = files.get(name) if isinstance(files, dict) else None
    return stored if isinstance(stored, str) else None


def parse_description(text: bytes, where: str) -> dict[str, Any]:
    """Parse a description; ``where`` names it in errors. Raise DatasetError if it is invalid or has an unknown version."""
    try:
        content = parse_json(text)
    except ValueError as error:
        raise DatasetError(f"{where}: cannot be read ({error}); remove it to open the dataset without it") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT["format"]:
        raise DatasetError(f"{where}: is not multiseg's description; remove it to open the dataset without it")
    if content.get("version") != _FORMAT["version"]:
        raise DatasetError(
            f"{where}: has version {str(content.get('version'))[:20]}, this multiseg reads version 1; update multiseg"
        )
    difference = problem(content, _VALUES)
    if difference is not None:
        raise DatasetError(f"{where}: is damaged: {difference}; remove it to open the dataset without it")
    return content


def hash_database(records: LmdbFile) -> str:
    """Return the SHA-256 of a database's keys and values, as computed by RecordWriter while writing."""
    digest = hashlib.sha256()
    for position, key in enumerate(records.walk_keys()):
        hash_record(digest, key, records[position])
    return digest.hexdigest()


def combined_hash(hashes: dict[str, str]) -> str:
    """Return the content hash: the combination of the hashes of a dataset's databases."""
    lines = "".join(f"{name} {hashes[name]}\n" for name in DATABASES if name in hashes)
    return hashlib.sha256(lines.encode()).hexdigest()


def computed_hash(folder: Path) -> str:
    """Compute the content hash of a dataset folder from all its records. Raise DatasetError if one cannot be read."""
    present = [name for name in DATABASES if (folder / name).is_dir()]
    return combined_hash({name: hash_database(LmdbFile(folder / name)) for name in present})
