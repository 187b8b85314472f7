"""Write files and folders such that a reader never sees partial content, not even after a power failure.

All other modules that write what must survive a power failure do it with these functions. A file system promises no more than
POSIX does: content is on disk after fsync of the file, a name after fsync of its folder.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from multiseg.errors import SettingsError
from multiseg.files.locking import try_lock
from multiseg.files.reading import LINK

LOCK_SECONDS, POLL_SECONDS = 30.0, 0.02  # for which another process may write a file, between two looks
_SURROGATE = re.compile("[\ud800-\udfff]")


def open_own(path: Path, mode: Literal["a", "w"]) -> int:
    """Open a file of a folder of multiseg for appending, or to be locked, and return its descriptor; it is created if missing.

    The file can be read with it, too.

    Raises OSError, also for a symbolic link: what it refers to would be changed.
    """
    flags = (os.O_APPEND if mode == "a" else 0) | os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    return _open_without_following_for_writing(path, flags)


def _open_without_following_for_writing(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise OSError(error.errno, LINK, str(path)) from None
        raise


def target(path: Path, follow: bool = True) -> Path:
    """Return the file that is written for ``path``, with links resolved; without ``follow`` a link itself is replaced.

    Raises SettingsError if it is not a regular file, or its folder does not exist.
    """
    real = Path(os.path.realpath(path)) if follow else Path(os.path.realpath(path.parent), path.name)
    if not real.parent.is_dir():
        raise SettingsError(f"{path}: cannot be written: there is no folder {path.parent}")
    if real.exists() and not real.is_file():
        raise SettingsError(f"{path}: cannot be written: is {'a folder' if real.is_dir() else 'not a regular file'}")
    return real


def write_bytes(path: Path, data: bytes, durable: bool = True, sync_folder: bool = True, follow: bool = True) -> None:
    """Replace a file's content atomically; with ``durable`` it survives a power failure once the function has returned.

    Without ``sync_folder`` a power failure leaves the old file or the new one, until the folder is synchronised: for files of
    which several are written to one folder. Two processes that write one file do it one after the other. Raises SettingsError
    for a path that cannot be a file, see :func:`target`.
    """
    real = target(path, follow)
    part = real.with_name(f".{real.name}.part")
    try:
        with os.fdopen(_claim(part), "wb") as file:
            try:
                file.truncate()
                file.write(data)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
                part.replace(real)
            except BaseException:
                part.unlink(missing_ok=True)  # while it is locked: another process may create it again
                raise
        if durable and sync_folder:
            sync_one(real.parent)
    except OSError as error:  # it names the temporary file, or none
        raise OSError(error.errno, error.strerror, str(path)) from error


def _claim(part: Path) -> int:
    """Open and lock the temporary file of a file that is written; return its descriptor. The lock ends when it is closed.

    Raises OSError if another process keeps the lock for LOCK_SECONDS.
    """
    end = time.monotonic() + LOCK_SECONDS
    while True:
        with suppress(OSError):
            if part.is_symlink():  # of an untrusted folder, to a file elsewhere
                part.unlink()
        descriptor = _open_without_following_for_writing(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if try_lock(descriptor) != "held":
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), part.stat()):
                        return descriptor
            elif time.monotonic() > end:
                raise OSError(errno.EAGAIN, "another process is writing it")
            else:
                time.sleep(POLL_SECONDS)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the process that wrote before has renamed or removed it, or is still writing


def write_text(path: Path, text: str, sync_folder: bool = True, follow: bool = True) -> None:
    """Replace a file's content with text, encoded as UTF-8, as :func:`write_bytes` does.

    Bytes of file names that are not UTF-8 become ``\\udcff``.
    """
    write_bytes(path, text.encode(errors="backslashreplace"), sync_folder=sync_folder, follow=follow)


def write_json(path: Path, value: Any, sync_folder: bool = True, follow: bool = True) -> None:
    """Replace a JSON file's content as :func:`write_bytes` does; see :func:`json_text`."""
    write_text(path, json_text(value) + "\n", sync_folder, follow)


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
    """Flush a file to disk, or the entries of a folder: names that were created, renamed or removed in it.

    Raises OSError naming the path.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        os.close(descriptor)
