"""Temporary folders with an owner: a folder whose process ended without removing it is removed by a later process."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path

from multiseg.files.locking import try_lock

PREFIX = "multiseg-"
OWNER = ".owner"  # locked by the process that owns the folder, as long as it lives
NEW_SECONDS = 60.0  # during which a folder is not swept: its owner may not have locked it yet


class TemporaryFolder:
    """A folder ``path`` that is removed by :meth:`remove`, after a with block, at the end of the process, or by a later process.

    It lies in the folder for temporary files, and its name begins with ``multiseg-``; or it lies in the folder ``beside``, its
    name begins with ``prefix``, and its files are renamed to their place there. Folders with the same beginning whose owners have
    ended are removed first.

    Raises OSError if it cannot be created.
    """

    def __init__(self, prefix: str = PREFIX, beside: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir() if beside is None else beside)
        sweep(parent, prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        # a child process that is forked shares the lock, but removes nothing
        self._lock = os.open(self.path / OWNER, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try_lock(self._lock)
        self.remove = weakref.finalize(self, _remove, self.path, self._lock, os.getpid())

    def __enter__(self) -> TemporaryFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def files(self) -> list[Path]:
        """Return the paths in the folder, without the mark of its owner."""
        return sorted(path for path in self.path.iterdir() if path.name != OWNER)


_until_the_end: list[TemporaryFolder] = []


def folder_until_the_end(name: str) -> Path:
    """Return a new temporary folder that exists until this process ends; ``name`` is part of its name."""
    folder = TemporaryFolder(f"{PREFIX}{name}-")
    _until_the_end.append(folder)
    return folder.path


def sweep(parent: Path, prefix: str = PREFIX) -> None:
    """Remove this user's temporary folders in ``parent`` whose owner has ended."""
    with suppress(OSError), os.scandir(parent) as entries:
        names = [
            entry.path for entry in entries if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False)
        ]
        for name in names:
            with suppress(OSError):
                _sweep(Path(name))


def _sweep(folder: Path) -> None:
    if folder.stat().st_uid != os.getuid():
        return
    lock = os.open(folder / OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if time.time() - os.fstat(lock).st_mtime < NEW_SECONDS:
            return
        if try_lock(lock) == "acquired":  # without locks nobody knows whether the owner lives
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _remove(path: Path, lock: int, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)
