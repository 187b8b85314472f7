"""Write LMDB databases of records; the same records always produce the same bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb

_INITIAL_MAP_SIZE = 16 << 20  # doubled whenever it is full, as in DIGITS
_COMMIT_BYTES = 4 << 20  # a transaction's pages are held in memory


def hash_record(digest: Any, key: bytes, value: bytes) -> None:
    """Add a record to a hash, including its lengths, so that different databases have different hashes."""
    digest.update(b"%d %d %b" % (len(key), len(value), key))
    digest.update(value)


class RecordWriter:
    """Write records under the keys 000000000, 000000001 and so on. Use as a context manager.

    Raises OSError if LMDB fails, e.g. on a full disk. ``digest`` is the SHA-256 of the written records.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.count = 0
        self.digest = hashlib.sha256()
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes = 0
        folder.mkdir(parents=True)
        try:
            # No lock file and no syncing: the staging folder is private, and staged_folder syncs it when it is complete.
            self._environment = lmdb.open(os.fsencode(folder), map_size=_INITIAL_MAP_SIZE, lock=False, sync=False)
        except lmdb.Error as error:
            raise self._as_os_error(error) from error

    def write(self, record: bytes) -> None:
        """Append a record."""
        key = b"%09d" % self.count
        hash_record(self.digest, key, record)
        self._pending.append((key, record))
        self._pending_bytes += len(record)
        self.count += 1
        if self._pending_bytes >= _COMMIT_BYTES:
            self._commit()

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._commit()
        finally:
            self._environment.close()

    def _commit(self) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, record in self._pending:
                        transaction.put(key, record, append=True)
                break
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise self._as_os_error(error) from error
        self._pending.clear()
        self._pending_bytes = 0

    def _as_os_error(self, error: lmdb.Error) -> OSError:
        """Return the OSError for an LMDB error. LMDB reports a disk that fills up during a write as an input/output error."""
        text = str(error)
        nearly_full = shutil.disk_usage(self.path).free < self._pending_bytes + (1 << 20)
        if "No space left" in text or (nearly_full and "Input/output error" in text):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if "quota exceeded" in text:
            return OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return OSError(errno.EIO, text)
