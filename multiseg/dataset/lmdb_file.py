"""Read LMDB files safely, including damaged ones.

The LMDB library maps the file and follows any offset in it: a truncated or damaged file ends the process with SIGBUS or
SIGSEGV, which no ``except`` catches. It also refuses to open a file twice in one process, including a use by pycaffe.
A finished database needs no locking, so this reader traverses the B-tree once, validates every offset against the file
size, and stores the position of each value (12 bytes per record). Values are then read with ``pread``, concurrently from
any thread, process or fork; a file that is truncated later raises an error as well.

The format is that of LMDB 0.9 (data version 1) on 64-bit machines, from the structures in its mdb.c.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multiseg.errors import DatasetError
from multiseg.files import open_regular

_MAGIC = 0xBEEFC0DE
_VERSION = 1
_PAGE_HEADER = 16  # page number, padding, flags, lower and upper bound of the free space
_NODE_HEADER = 8  # data size (leaf) or page number (branch) in the first 6 bytes, flags, key size
_BRANCH, _LEAF = 0x01, 0x02
_BIG_DATA = 0x01
_NO_PAGE = 2**64 - 1
_TRANSACTION = 144  # position of the transaction's number in a meta page
_MAX_DEPTH = 32  # CURSOR_STACK in mdb.c
_PAGES_AT_ONCE = 256

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class _Meta:
    """The main database as described by a meta page."""

    page_size: int
    flags: int
    depth: int
    pages: int
    entries: int
    root: int
    transaction: int


@dataclass(frozen=True)
class _Leaves:
    """A batch of leaf pages: their numbers and bytes, and the row and start of each node."""

    numbers: Integers
    pages: NDArray[np.uint8]
    rows: Integers
    starts: Integers


class LmdbFile:
    """Read the records of one LMDB database by position, in key order.

    ``path`` is the folder that contains data.mdb, or the file itself. Raises DatasetError if it is missing, truncated,
    damaged, or not a plain LMDB database.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        file = self.path / "data.mdb" if self.path.is_dir() else self.path
        try:
            with open_regular(file) as opened:
                self._descriptor = os.dup(opened.fileno())
        except OSError as error:
            raise DatasetError(f"{file}: cannot be opened: {error.strerror}") from error
        try:
            self._size = os.fstat(self._descriptor).st_size
            self._meta = self._read_meta()
            self._offsets, self._sizes, self.has_counting_keys = self._index()
            self.check_unchanged()
        except OSError as error:
            raise DatasetError(f"{file}: cannot be read: {error.strerror}") from error

    def __del__(self) -> None:
        # There is no close(): another thread may be reading, and the number of a closed descriptor may be reused.
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, position: int) -> bytes:
        """Read the value of the record at ``position``."""
        offset, size = int(self._offsets[position]), int(self._sizes[position])
        try:
            value = os.pread(self._descriptor, size, offset)
        except OSError as error:
            raise DatasetError(f"{self.path}: cannot be read: {error.strerror}") from error
        if len(value) != size:
            raise self._damaged("it was truncated while open")
        return value

    def key(self, position: int) -> bytes:
        """Return the key of the record at ``position``; traverses the file unless the keys are consecutive numbers."""
        if self.has_counting_keys:
            return b"%09d" % position
        for number, key in enumerate(self.walk_keys()):
            if number == position:
                return key
        raise IndexError(position)

    def walk_keys(self) -> Iterator[bytes]:
        """Yield all keys in order, reading them from the file."""
        for leaves in self._leaves():
            for row, start in zip(leaves.rows.tolist(), leaves.starts.tolist(), strict=True):
                node = leaves.pages[row, start:].tobytes()
                (size,) = struct.unpack_from("<6xH", node)
                yield node[_NODE_HEADER : _NODE_HEADER + size]

    def check_unchanged(self) -> None:
        """Raise DatasetError if another process has written to the database since it was opened.

        LMDB uses pages again whose records this reader may still be reading. Each transaction writes its number to a meta page.
        """
        latest = 0
        for page in (0, 1):
            number = os.pread(self._descriptor, 8, page * self._meta.page_size + _TRANSACTION)
            latest = max(latest, int.from_bytes(number, "little"))
        if latest != self._meta.transaction:
            raise DatasetError(
                f"{self.path}: was written to by another process while it was read; wait until that has finished, and open "
                "it again"
            )

    def _damaged(self, reason: str) -> DatasetError:
        return DatasetError(f"{self.path}: is a damaged or truncated LMDB database ({reason}); create or copy it again")

    def _unsupported(self, reason: str) -> DatasetError:
        return DatasetError(f"{self.path}: is not a database of images ({reason})")

    def _read_meta(self) -> _Meta:
        first = self._parse_meta(os.pread(self._descriptor, 152, 0))
        if first is None:
            raise self._unsupported("not an LMDB 0.9 file")
        if first.page_size < 256 or first.page_size > 65536 or first.page_size & (first.page_size - 1):
            raise self._damaged(f"page size {first.page_size}")
        second = self._parse_meta(os.pread(self._descriptor, 152, first.page_size))
        if second is None or second.page_size != first.page_size:
            raise self._damaged("its second meta page is missing")
        meta = max(first, second, key=lambda m: m.transaction)
        if meta.flags & ~0x08:  # MDB_INTEGERKEY is harmless; duplicate keys and the like are not supported
            raise self._unsupported(f"LMDB flags {meta.flags:#x}")
        return meta

    def _parse_meta(self, page: bytes) -> _Meta | None:
        if len(page) < 152:
            return None
        flags, magic, version = struct.unpack_from("<10xH4xII", page)
        if not flags & 0x08 or magic != _MAGIC or version != _VERSION:
            return None
        (page_size,) = struct.unpack_from("<I", page, 40)
        db_flags, depth, branches, leaves, _, entries, root = struct.unpack_from("<4xHHQQQQQ", page, 88)
        (transaction,) = struct.unpack_from("<Q", page, _TRANSACTION)
        return _Meta(page_size, db_flags, depth, branches + leaves, entries, root, transaction)

    def _read_pages(self, numbers: Integers) -> NDArray[np.uint8]:
        size = self._meta.page_size
        pages = np.empty((len(numbers), size), np.uint8)
        for row, number in zip(pages, numbers.tolist(), strict=True):
            if os.preadv(self._descriptor, [row.data], number * size) != size:
                raise self._damaged(f"page {number} lies beyond its end")
        return pages

    def _nodes(self, pages: NDArray[np.uint8], kind: int) -> tuple[Integers, Integers]:
        """Return row and start of every node in the pages, in order; every node header is within its page."""
        size = self._meta.page_size
        header = pages[:, :_PAGE_HEADER].copy().view("<u2")
        lower = header[:, 6].astype(np.int64)
        if np.any(header[:, 5] & 0x2F != kind) or np.any((lower < _PAGE_HEADER) | (lower > size) | (lower & 1 > 0)):
            raise self._damaged("a page of its tree is invalid")
        counts = (lower - _PAGE_HEADER) // 2
        rows = np.repeat(np.arange(len(pages)), counts)
        slots = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = pages.view("<u2")[rows, _PAGE_HEADER // 2 + slots].astype(np.int64)
        if np.any((starts < lower[rows]) | (starts > size - _NODE_HEADER)):
            raise self._damaged("an entry lies outside its page")
        return rows, starts

    def _leaves(self) -> Iterator[_Leaves]:
        """Descend the tree level by level, then yield the leaf pages and their nodes in batches."""
        if self._meta.root == _NO_PAGE:
            return
        if not 1 <= self._meta.depth <= _MAX_DEPTH:
            raise self._damaged(f"depth {self._meta.depth}")
        level = self._check_pages(np.array([self._meta.root], np.uint64))
        for _ in range(self._meta.depth - 1):
            children = []
            for numbers in self._batches(level):
                pages = self._read_pages(numbers)
                header = _gather(pages, *self._nodes(pages, _BRANCH), _NODE_HEADER)
                header[:, 6:] = 0  # the page number is 48 bits wide; the key's size follows
                children.append(header.view("<u8").ravel())
            level = self._check_pages(np.concatenate(children))
        for numbers in self._batches(level):
            pages = self._read_pages(numbers)
            yield _Leaves(numbers, pages, *self._nodes(pages, _LEAF))

    def _check_pages(self, numbers: NDArray[np.uint64]) -> Integers:
        last_page = self._size // self._meta.page_size
        if np.any((numbers < 2) | (numbers >= last_page)):
            raise self._damaged("a page of its tree lies beyond its end")
        if len(numbers) > min(self._meta.pages, last_page):  # pages that refer to each other in a cycle
            raise self._damaged("its tree has more pages than the file")
        return numbers.astype(np.int64)

    def _batches(self, level: Integers) -> Iterator[Integers]:
        for start in range(0, len(level), _PAGES_AT_ONCE):
            yield level[start : start + _PAGES_AT_ONCE]

    def _index(self) -> tuple[Integers, NDArray[np.uint32], bool]:
        """Return the offset and size of every value, and whether the keys are 000000000, 000000001 and so on."""
        offsets, sizes = [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
        consecutive = True
        total = 0
        page_size = self._meta.page_size
        for leaves in self._leaves():
            pages, rows, starts = leaves.pages, leaves.rows, leaves.starts
            header = _gather(pages, rows, starts, _NODE_HEADER)
            size = header[:, :4].copy().view("<u4").ravel()
            flags, key_size = header[:, 4:].copy().view("<u2").astype(np.int64).T
            if np.any(flags & ~_BIG_DATA):
                raise self._unsupported("it holds named or duplicate-key databases")
            begin = starts + _NODE_HEADER + key_size
            big = flags == _BIG_DATA
            if np.any(begin + np.where(big, 8, size) > page_size):
                raise self._damaged("an entry extends beyond its page")
            offset = leaves.numbers[rows] * page_size + begin
            if big.any():
                overflow = _gather(pages, rows[big], begin[big], 8).view("<u8").ravel()
                if np.any((overflow < 2) | (overflow >= self._size // page_size)):
                    raise self._damaged("a value lies beyond its end")
                offset[big] = overflow.astype(np.int64) * page_size + _PAGE_HEADER
            if np.any(offset + size > self._size):
                raise self._damaged("a value extends beyond its end")
            if consecutive:
                consecutive = bool(np.all(key_size == 9)) and _are_consecutive(
                    _gather(pages, rows, begin - 9, 9), total
                )
            total += len(rows)
            offsets.append(offset)
            sizes.append(size)
        if total != self._meta.entries:
            raise self._damaged(f"{total} records where its header declares {self._meta.entries}")
        return np.concatenate(offsets), np.concatenate(sizes), consecutive


def _gather(pages: NDArray[np.uint8], rows: Integers, starts: Integers, count: int) -> NDArray[np.uint8]:
    """Return ``count`` bytes from each start in its row: ``(len(rows), count)``."""
    values: NDArray[np.uint8] = pages[rows[:, np.newaxis], starts[:, np.newaxis] + np.arange(count)]
    return values


def _are_consecutive(keys: NDArray[np.uint8], first: int) -> bool:
    """Return whether nine-byte keys are consecutive decimal numbers, starting with ``first``."""
    numbers = np.arange(first, first + len(keys))[:, np.newaxis] // 10 ** np.arange(8, -1, -1) % 10
    return bool(np.array_equal(keys, numbers + ord("0")))
