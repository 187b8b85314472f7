"""Write files atomically, so that a reader never sees partial content."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiseg.errors import SettingsError

_SURROGATE = re.compile("[\ud800-\udfff]")


def target(path: Path) -> Path:
    """Return the file that is written for ``path``, with links resolved.

    Raises SettingsError if it is not a regular file, or its folder does not exist.
    """
    real = Path(os.path.realpath(path))
    if not real.parent.is_dir():
        raise SettingsError(f"{path}: cannot be written: there is no folder {path.parent}")
    if real.exists() and not real.is_file():
        raise SettingsError(f"{path}: cannot be written: is {'a folder' if real.is_dir() else 'not a regular file'}")
    return real


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's content atomically. Raise SettingsError for a path that cannot be a file, see :func:`target`."""
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
    except OSError as error:  # it names the temporary file, or none
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Replace a file's content with text, encoded as UTF-8, atomically.

    Bytes of file names that are not UTF-8 become ``\\udcff``.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file's content atomically; see :func:`json_text`."""
    write_text(path, json_text(value) + "\n")


def json_text(value: Any, indent: int | None = 2) -> str:
    """Return a value as JSON that every reader accepts: numbers that are not finite become null.

    Bytes of file names that are not UTF-8, which Python holds as lone surrogates, are escaped: json.loads restores them.
    """
    text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sync(folder: Path) -> None:
    """Flush a folder and the files in it to disk, so that they survive a power failure."""
    for path in (*folder.iterdir(), folder):
        if path.is_file() or path == folder:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
