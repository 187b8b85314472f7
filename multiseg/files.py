"""Read regular files, and write files and folders such that a reader never sees partial content, not even after a power failure.

All other modules that write what must survive a power failure do it with these functions. A file system promises no more than
POSIX does: content is on disk after fsync of the file, a name after fsync of its folder.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from multiseg.errors import SettingsError

PIECE = 1 << 20  # bytes of a large file that are read at once
_SURROGATE = re.compile("[\ud800-\udfff]")


def open_regular(path: str | os.PathLike[str]) -> io.FileIO:
    """Open a regular file for reading, without a buffer.

    Raises OSError naming the path if it cannot be opened, or is a FIFO, a device or a socket: reading these may block forever.
    """
    file = io.FileIO(path, opener=_open_without_blocking)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return file


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_bytes(path: str | os.PathLike[str], size: int = -1) -> bytes:
    """Return the content of a regular file, or its first ``size`` bytes. Raises OSError, see :func:`open_regular`."""
    with open_regular(path) as file:  # takes half the time of Path.read_bytes, which matters for small images
        return file.readall() if size < 0 else _read(file, size)


def _read(file: io.FileIO, size: int) -> bytes:
    """Return ``size`` bytes, or fewer at the end of the file: a single read of an unbuffered file may return fewer before it."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a regular file in hex digits, read in pieces. Raises OSError, see :func:`open_regular`."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the content of a regular file in UTF-8 with or without a byte order mark, with line feeds as line ends.

    Raises OSError, see :func:`open_regular`, and UnicodeDecodeError.
    """
    text = read_bytes(path).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str | bytes) -> Any:
    """Return the value of JSON in a file or a message. Raises ValueError if it is not JSON, or nests too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the value in a JSON file. Raises OSError, see :func:`open_regular`, and ValueError."""
    return parse_json(read_text(path))


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


def write_bytes(path: Path, data: bytes, durable: bool = True, sync_folder: bool = True) -> None:
    """Replace a file's content atomically; with ``durable`` it survives a power failure once the function has returned.

    Without ``sync_folder`` a power failure leaves the old file or the new one, until the folder is synchronised: for files of
    which several are written to one folder. Raises SettingsError for a path that cannot be a file, see :func:`target`.
    """
    real = target(path)
    part = real.with_name(f".{real.name}.part")
    try:
        try:
            with part.open("wb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            part.replace(real)
            if durable and sync_folder:
                sync_one(real.parent)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:  # it names the temporary file, or none
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str, sync_folder: bool = True) -> None:
    """Replace a file's content with text, encoded as UTF-8, as :func:`write_bytes` does.

    Bytes of file names that are not UTF-8 become ``\\udcff``.
    """
    write_bytes(path, text.encode(errors="backslashreplace"), sync_folder=sync_folder)


def write_json(path: Path, value: Any, sync_folder: bool = True) -> None:
    """Replace a JSON file's content as :func:`write_bytes` does; see :func:`json_text`."""
    write_text(path, json_text(value) + "\n", sync_folder)


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


def make_folder(folder: Path) -> list[Path]:
    """Create a folder and its missing parents, whose names survive a power failure; return those created, innermost first.

    Raises OSError; what was created then is removed again.
    """
    folder = Path.cwd() / folder
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for created in reversed(missing):
            sync_one(created.parent)
    except OSError:
        remove_empty(missing)
        raise
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders in the given order until one is not empty or does not exist."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def rename(path: Path, final: Path) -> None:
    """Rename a file or folder whose content is on disk; the new name survives a power failure. Raises OSError."""
    path.rename(final)
    for parent in {final.parent, path.parent}:
        sync_one(parent)


def sync_tree(folder: Path) -> None:
    """Flush a folder, all folders in it and their files to disk."""
    for path in (*folder.rglob("*"), folder):
        if path.is_file() or path.is_dir():
            sync_one(path)


def sync_one(path: Path) -> None:
    """Flush a file to disk, or the entries of a folder: names that were created, renamed or removed in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
