"""Write LMDB databases of records, the same bytes for the same records."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb

_FIRST_MAP_SIZE = 16 << 20  # doubled whenever it is full, as DIGITS does
_COMMIT_BYTES = 4 << 20  # a transaction's pages are held in memory


def hash_record(digest: Any, key: bytes, value: bytes) -> None:
    """Add a record to a hash, with its lengths, so that no two different databases hash alike."""
    digest.update(b"%d %d %b" % (len(key), len(value), key))
    digest.update(value)


class RecordWriter:
    """Write records under the keys 000000000, 000000001 and so on. Use as a context manager.

    Raises OSError where LMDB fails, e.g. on a full disk. ``digest`` is the SHA-256 over what was written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self.count = 0
        self.digest = hashlib.sha256()
        self._waiting: list[tuple[bytes, bytes]] = []
        self._waiting_bytes = 0
        folder.mkdir(parents=True)
        try:
            # No lock file and no syncing: nobody else knows the folder yet, and staged_folder syncs it when it is whole.
            self._environment = lmdb.open(str(folder), map_size=_FIRST_MAP_SIZE, lock=False, sync=False)
        except lmdb.Error as error:
            raise self._failed(error) from error

    def write(self, record: bytes) -> None:
        """Append a record."""
        key = b"%09d" % self.count
        hash_record(self.digest, key, record)
        self._waiting.append((key, record))
        self._waiting_bytes += len(record)
        self.count += 1
        if self._waiting_bytes >= _COMMIT_BYTES:
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
                    for key, record in self._waiting:
                        transaction.put(key, record, append=True)
                break
            except lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise self._failed(error) from error
        self._waiting.clear()
        self._waiting_bytes = 0

    def _failed(self, error: lmdb.Error) -> OSError:
        """Say what LMDB's error means. It reports a disk that fills up during a write as an input/output error."""
        text = str(error)
        nearly_full = shutil.disk_usage(self.path).free < self._waiting_bytes + (1 << 20)
        if "No space left" in text or (nearly_full and "Input/output error" in text):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if "quota exceeded" in text:
            return OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return OSError(errno.EIO, text)
