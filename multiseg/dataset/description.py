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
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); remove it to open the dataset without it") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT["format"]:
        raise DatasetError(f"{path}: is not multiseg's description; remove it to open the dataset without it")
    if content.get("version") != _FORMAT["version"]:
        raise DatasetError(f"{path}: is of version {content.get('version')}, this multiseg reads version 1; update it")
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
