"""Read and write dataset.json, multiseg's description in a dataset folder, and compute the content hash."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from multiseg.dataset.lmdb_file import LmdbFile
from multiseg.dataset.writing import hash_record
from multiseg.errors import DatasetError
from multiseg.files import read_bytes

FILE = "dataset.json"
DATABASES = ("train_db/features", "train_db/labels", "val_db/features", "val_db/labels")
_FORMAT = {"format": "multiseg dataset", "version": 1}


def write_description(folder: Path, content: dict[str, Any]) -> None:
    """Write the description of a new dataset."""
    (folder / FILE).write_text(json.dumps(_FORMAT | content, indent=2) + "\n", encoding="utf-8")


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
        content = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{where}: cannot be read ({error}); remove it to open the dataset without it") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT["format"]:
        raise DatasetError(f"{where}: is not multiseg's description; remove it to open the dataset without it")
    if content.get("version") != _FORMAT["version"]:
        raise DatasetError(
            f"{where}: has version {content.get('version')}, this multiseg reads version 1; update multiseg"
        )
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
