"""The description that multiseg keeps beside DIGITS' layout, and the hash that tells datasets apart."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from multiseg.dataset.lmdb_file import LmdbFile
from multiseg.dataset.writing import hash_record
from multiseg.errors import DatasetError

FILE = "dataset.json"
DATABASES = ("train_db/features", "train_db/labels", "val_db/features", "val_db/labels")
_FORMAT = {"format": "multiseg dataset", "version": 1}


def write_description(folder: Path, content: dict[str, Any]) -> None:
    """Write the description of a new dataset."""
    (folder / FILE).write_text(json.dumps(_FORMAT | content, indent=2) + "\n", encoding="utf-8")


def read_description(folder: Path) -> dict[str, Any] | None:
    """Read a dataset's description; None where there is none, as in DIGITS' own folders.

    Raises DatasetError where it cannot be read or is of a later version.
    """
    path = folder / FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error}); remove it to open the dataset without it") from error
    return parse_description(text, str(path))


def parse_description(text: bytes, where: str) -> dict[str, Any]:
    """The content of a description, which ``where`` names in errors. Raises DatasetError where it is none, or a later one."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"{where}: cannot be read ({error}); remove it to open the dataset without it") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT["format"]:
        raise DatasetError(f"{where}: is not multiseg's description; remove it to open the dataset without it")
    if content.get("version") != _FORMAT["version"]:
        raise DatasetError(f"{where}: is of version {content.get('version')}, this multiseg reads version 1; update it")
    return content


def hash_database(records: LmdbFile) -> str:
    """Compute the SHA-256 over a database's keys and values, as RecordWriter does while writing."""
    digest = hashlib.sha256()
    for position, key in enumerate(records.walk_keys()):
        hash_record(digest, key, records[position])
    return digest.hexdigest()


def combined_hash(hashes: dict[str, str]) -> str:
    """Combine the hashes of a dataset's databases into one."""
    lines = "".join(f"{name} {hashes[name]}\n" for name in DATABASES if name in hashes)
    return hashlib.sha256(lines.encode()).hexdigest()


def computed_hash(folder: Path) -> str:
    """The content hash of a dataset folder, from all its records. Raises DatasetError where one cannot be read."""
    present = [name for name in DATABASES if (folder / name).is_dir()]
    return combined_hash({name: hash_database(LmdbFile(folder / name)) for name in present})
