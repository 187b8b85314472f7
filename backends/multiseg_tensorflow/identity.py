"""The identity of a Python network file: whether executing it again would give the same network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from multiseg.files import read_bytes
from multiseg.worker import helper_modules
from multiseg.worker.choice import Choice


@dataclass(frozen=True)
class Identity:
    """A digest of the ``chosen`` network, of its file, and of the times and sizes of the ``beside`` files that it read."""

    chosen: Choice
    beside: tuple[Path, ...]
    digest: str

    @classmethod
    def of(cls, chosen: Choice) -> Identity:
        """Return the identity of the network file that was loaded last. Raises OSError if it cannot be read any more."""
        beside = tuple(chosen.root / name for name in helper_modules.used(chosen))
        return cls(chosen, beside, _digest(chosen, beside))

    def is_current(self) -> bool:
        """Return whether the files have not changed."""
        try:
            return _digest(self.chosen, self.beside) == self.digest
        except OSError:
            return False


def _digest(chosen: Choice, beside: tuple[Path, ...]) -> str:
    digest = hashlib.blake2b(repr(chosen).encode() + read_bytes(chosen.file), digest_size=16)
    for fact in _facts(beside):
        digest.update(fact)
    return digest.hexdigest()


def _facts(files: tuple[Path, ...]) -> Iterator[bytes]:
    for file in files:
        status = file.stat()
        yield f"{file} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}".encode()
