"""Files of a folder in pieces, by their names in it; each side only ever touches what lies in the folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from multiseg.errors import RunError

PIECE = 8 << 20  # bytes in one message at most: others get their turn in between

Stamp = tuple[int, int]  # of a file: bytes, time of its last change in nanoseconds
Place = tuple[str, int, int, int]  # in a file: its name, first byte, bytes, and when the file was changed
ALL = (0, -1, 0)  # the rest of a place that is a file as it is now, which is replaced in one step
Piece = tuple[str, int, bytes]  # of a file: its name, first byte, content


def listing(folder: Path) -> dict[str, Stamp]:
    """The files in a folder, without those whose names, or their folders', begin with a dot."""
    found = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            with suppress(FileNotFoundError):  # removed by now
                status = path.stat()
                if not name.startswith(".") and stat.S_ISREG(status.st_mode):
                    found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return found


def messages(files: Mapping[str, Stamp]) -> Iterator[list[Place]]:
    """All places of some files, so many together as one message takes; an empty file is one place, too."""
    message: list[Place] = []
    room = PIECE
    for name, (size, changed) in files.items():
        start = 0
        while True:
            part = min(size - start, room)
            message.append((name, start, part, changed))
            start, room = start + part, room - part
            if not room:
                yield message
                message, room = [], PIECE
            if start >= size:
                break
    if message:
        yield message


def read(folder: Path, places: list[Place]) -> list[bytes | None]:
    """What is at some places; None where the file has gone, or has been changed since."""
    found: list[bytes | None] = []
    for name, start, size, changed in places:
        content = None
        with suppress(FileNotFoundError), inside(folder, name).open("rb") as file:
            if changed in (0, os.fstat(file.fileno()).st_mtime_ns):
                file.seek(start)
                content = file.read(size)
        found.append(content if content is not None and size in (-1, len(content)) else None)
    return found


def write(folder: Path, pieces: list[Piece]) -> None:
    """Write pieces of files, which arrive in order; the first one of a file begins it anew."""
    for name, start, content in pieces:
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb" if start == 0 else "r+b") as file:
            file.seek(start)
            file.write(content)


def inside(folder: Path, name: str) -> Path:
    """The file of that name in the folder. Raises RunError for a name that leads out of it."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts:
        raise RunError(f"{name!r}: is no name of a file in {folder}; the other side is no multiseg")
    return folder / name
