"""Open untrusted HDF5 files: without links to other files, and without data that the file only declares.

HDF5 is read by h5py, an extra of multiseg, which TensorFlow brings along.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from multiseg.errors import BackendUnavailable, ModelError, MultisegError
from multiseg.files import open_regular

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_EXPANSION = 200  # bytes of arrays for a byte of the file: compressed weights take more than a hundredth
MIN_ALLOWED = 1 << 24  # bytes of arrays that any file may have


@contextmanager
def opened(path: Path, title: str | Path | None = None) -> Iterator[Any]:
    """Open an HDF5 file for reading, as an ``h5py.File``. ``title`` names it in messages, ``path`` by default.

    Raises ModelError if it is damaged, refers to data in other files, or declares arrays far larger than the file; and
    BackendUnavailable without h5py.
    """
    title = path if title is None else title
    try:
        import h5py
    except ImportError as error:
        raise BackendUnavailable(
            f"{title}: is an HDF5 file, which the package h5py reads; it is not installed in this Python ({error}): "
            "pip install 'multiseg[hdf5]'"
        ) from error
    try:
        with open_regular(path) as source:
            size = source.seek(0, 2)
        with h5py.File(path, "r") as file:
            _check(title, file, h5py, max(MAX_EXPANSION * size, MIN_ALLOWED))
            yield file
    except MultisegError:
        raise
    # ValueError: types of numbers that do not exist, names that are not text
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{title}: is not a complete HDF5 file: {error}; copy or write it again") from error


def _check(title: str | Path, file: Any, h5py: Any, allowed: int) -> None:
    """Raise ModelError if a link or an array of the file refers to other files, or if its arrays are too large."""
    visited, waiting, total = set(), [file], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ModelError(f"{title}: its {group.name}/{name} is a link to another file, which is not followed")
            if isinstance(link, h5py.SoftLink):
                continue  # to an object of this file
            member = group[name]
            address = h5py.h5o.get_info(member.id).addr
            if address in visited:
                continue
            visited.add(address)
            if isinstance(member, h5py.Group):
                waiting.append(member)
            elif isinstance(member, h5py.Dataset):
                if member.external or member.is_virtual:
                    raise ModelError(f"{title}: the data of {member.name} is in another file, which is not read")
                total += member.nbytes
    if total > allowed:
        raise ModelError(f"{title}: declares arrays of {total} bytes, far more than it contains; it is damaged")


def root_names(path: Path, head: bytes) -> list[str]:
    """Return the names in the root group of an HDF5 file whose first bytes are ``head``, without h5py.

    Read are files with a superblock of version 0 or 1, which h5py and Caffe write by default: its entry of the root group
    refers to a heap of the names (HDF5 File Format Specification, II.A and III.A-D). [] for other files.
    """
    if not head.startswith(SIGNATURE) or len(head) < 112 or head[8] > 1 or head[13] != 8:
        return []
    entry = 56 if head[8] == 0 else 60  # of the root group
    heap_address = int.from_bytes(head[entry + 32 : entry + 40], "little")
    try:
        with open_regular(path) as file:
            file.seek(heap_address)
            heap = file.read(32)
            if heap[:4] != b"HEAP":
                return []
            size, free, address = (int.from_bytes(heap[at : at + 8], "little") for at in (8, 16, 24))
            file.seek(address)
            return _names(file.read(min(size, 1 << 20)), free)
    except (OSError, OverflowError, ValueError):
        return []


def _names(content: bytes, free: int) -> list[str]:
    """Return the names in a heap: text up to a NUL, from multiples of 8 on, between blocks that are free.

    A free block begins with the offset of the next one, 1 for none, and its size.
    """
    used = bytearray(content)
    for _ in range(len(content) // 16):
        if free % 8 or free + 16 > len(content):
            break
        following, size = (int.from_bytes(content[at : at + 8], "little") for at in (free, free + 8))
        used[free : free + size] = bytes(len(used[free : free + size]))
        free = following
    return [part.decode(errors="replace") for part in bytes(used).split(b"\0") if part]
