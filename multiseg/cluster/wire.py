"""Transfer the files of a folder in pieces. Each side accesses only files inside the folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from multiseg.errors import RunError

PIECE = 8 << 20  # maximum bytes per message, so that other messages are not delayed

Stamp = tuple[int, int]  # of a file: size in bytes, modification time in nanoseconds
Place = tuple[
    str, int, int, int
]  # part of a file: its name, first byte, number of bytes, modification time of the file
MOST_FILES = 100_000  # of a run
LONGEST_PART = 200  # bytes of a name between slashes: usual file systems allow 255, and temporary names are longer
LONGEST_NAME = 1000  # bytes of a name within the folder: Linux allows paths of 4,096
ALL = (
    0,
    -1,
    0,
)  # follows the name in a place that is a whole file in any version; for files that are replaced atomically
Piece = tuple[str, int, bytes]  # part of a file: its name, first byte, content


def listing(folder: Path, through: str = "") -> dict[str, Stamp]:
    """Return the stamps of a folder's files by relative name, without hidden files and folders (names that start with a dot).

    Raises RunError for a symbolic link to outside of the folder, whose content would be sent, or to a folder; the folder
    ``through`` may be a link.
    """
    stamps = {}
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*folders, *sorted(name for name in names if not name.startswith("."))]:
            path = Path(place) / name
            if (
                path.is_symlink()
                and path != folder / through
                and (name in folders or not path.resolve().is_relative_to(folder.resolve()))
            ):
                raise RunError(f"{path}: is a symbolic link{' to a folder' if name in folders else f' to outside of {folder}'}; "
                               "replace it by what it refers to")  # fmt: skip
            with suppress(FileNotFoundError):  # removed meanwhile
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    stamps[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
    return stamps


def checked(stamps: object) -> dict[str, Stamp]:
    """Return a listing that was received. Raises RunError for anything else, and for names of files outside the folder."""
    if not isinstance(stamps, Mapping):
        raise RunError("received what is not a listing of files; the sender is not multiseg")
    if len(stamps) > MOST_FILES:
        raise RunError(f"received a listing of {len(stamps)} files; a run has at most {MOST_FILES}")
    for name, stamp in stamps.items():
        whole = isinstance(stamp, (tuple, list)) and len(stamp) == 2 and all(type(part) is int for part in stamp)
        if not isinstance(name, str) or not whole or not all(0 <= part < 2**63 for part in stamp):
            raise RunError(f"{str(name)[:80]!r}: is listed without a size and a time; the sender is not multiseg")
        inside(Path(), name)
    return {name: (size, changed) for name, (size, changed) in stamps.items()}


def messages(files: Mapping[str, Stamp]) -> Iterator[list[Place]]:
    """Yield lists of places that cover the files, each list at most ``PIECE`` bytes; an empty file is one place."""
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
    """Return the content of places; None for a file that was removed or modified since its listing."""
    contents: list[bytes | None] = []
    for name, start, size, changed in places:
        content = None
        with suppress(FileNotFoundError), inside(folder, name).open("rb") as file:
            if changed in (0, os.fstat(file.fileno()).st_mtime_ns):
                file.seek(start)
                content = file.read(size)
        contents.append(content if content is not None and size in (-1, len(content)) else None)
    return contents


def write(folder: Path, pieces: list[Piece]) -> None:
    """Write pieces of files, which must arrive in order; the first piece of a file replaces it."""
    for name, start, content in pieces:
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb" if start == 0 else "r+b") as file:
            file.seek(start)
            file.write(content)


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in the folder. Raise RunError for a name that refers to a path outside of it."""
    try:
        name.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        raise RunError(f"{name[:80]!r}: is not the name of a file; the sender is not multiseg") from None
    parts = Path(name).parts
    outside = not parts or Path(name).is_absolute() or ".." in parts or "\0" in name
    lengths = [len(part.encode(errors="surrogateescape")) for part in parts]
    if outside or max(lengths) > LONGEST_PART or sum(lengths) + len(lengths) > LONGEST_NAME:
        raise RunError(f"{name[:80]!r}: is not the name of a file in {folder}; the sender is not multiseg")
    return folder / name
