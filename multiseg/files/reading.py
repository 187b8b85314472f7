"""Read regular files, and JSON in them. A device, a FIFO or, if wanted, a link is an error."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from threading import Event
from typing import Any

LINK = "is a symbolic link; replace it by what it refers to"
TAIL_BYTES = 1 << 16  # at the end of a log that are read
PIECE = 1 << 20  # bytes of a large file that are read at once


def open_regular(path: str | os.PathLike[str], follow: bool = True) -> io.FileIO:
    """Open a regular file for reading, without a buffer.

    Raises OSError naming the path if it cannot be opened, or is a FIFO, a device or a socket: reading these may block forever;
    also a symbolic link unless ``follow``, for files that belong to a folder: a link in an untrusted one could lead to any file.
    """
    file = io.FileIO(path, opener=_open_without_blocking if follow else _open_without_following)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    return file


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _open_without_following(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ELOOP and os.path.islink(path):  # noqa: PTH114
            raise OSError(error.errno, LINK, path) from None
        raise


def read_bytes(path: str | os.PathLike[str], size: int = -1, follow: bool = True) -> bytes:
    """Return the content of a regular file, or its first ``size`` bytes. Raises OSError, see :func:`open_regular`."""
    with open_regular(path, follow) as file:  # takes half the time of Path.read_bytes, which matters for small images
        return file.readall() if size < 0 else _read(file, size)


def _read(file: io.FileIO, size: int) -> bytes:
    """Return ``size`` bytes, or fewer at the end of the file: a single read of an unbuffered file may return fewer before it."""
    parts = []
    while size > 0 and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def tail(descriptor: int, lines: int, start: int = 0) -> list[str]:
    """Return the last lines of an open file, of what follows the byte ``start``; none if it cannot be read.

    They are looked for in the last TAIL_BYTES, and may contain any characters.
    """
    try:
        size = os.fstat(descriptor).st_size
        start = max(start, size - TAIL_BYTES)
        text = os.pread(descriptor, max(0, size - start), start)
    except OSError:
        return []
    return text.decode(errors="replace").splitlines()[-lines:]


def sha256_of(path: str | os.PathLike[str], stop: Event | None = None) -> str:
    """Return the SHA-256 of a regular file in hex digits, read in pieces.

    Raises OSError, see :func:`open_regular`; InterruptedError if another thread sets ``stop``.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(PIECE):
            if stop is not None and stop.is_set():
                raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR), os.fspath(path))
            digest.update(piece)
    return digest.hexdigest()


def read_text(path: str | os.PathLike[str], follow: bool = True) -> str:
    """Return the content of a regular file in UTF-8 with or without a byte order mark, with line feeds as line ends.

    Raises OSError, see :func:`open_regular`, and UnicodeDecodeError.
    """
    text = read_bytes(path, follow=follow).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str | bytes) -> Any:
    """Return the value of JSON in a file or a message. Raises ValueError if it is not JSON, or nests too deeply to be read."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def read_json(path: str | os.PathLike[str], follow: bool = True) -> Any:
    """Return the value in a JSON file. Raises OSError, see :func:`open_regular`, and ValueError."""
    return parse_json(read_text(path, follow))
