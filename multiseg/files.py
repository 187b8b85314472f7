"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from multiseg.errors import SettingsError


def target(path: Path) -> Path:
    """The file that is written for ``path``: where a link leads. Raises SettingsError where it is none, or in no folder."""
    real = Path(os.path.realpath(path))
    if not real.parent.is_dir():
        raise SettingsError(f"{path}: cannot be written: there is no folder {path.parent}")
    if real.exists() and not real.is_file():
        raise SettingsError(f"{path}: cannot be written: is {'a folder' if real.is_dir() else 'no regular file'}")
    return real


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content in one step: the old or the new content is there, never a part. See ``target``, too."""
    real = target(path)
    part = real.with_name(f".{real.name}.part")
    try:
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(real)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:  # which names the part, or nothing
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """The same for text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file in one step."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync(folder: Path) -> None:
    """Have a folder and the files in it on the disk itself, so that they outlast a power failure."""
    for path in (*folder.iterdir(), folder):
        if path.is_file() or path == folder:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
