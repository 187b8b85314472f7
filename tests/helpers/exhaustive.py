"""Every single-byte change of a small dataset, or of a run and its last snapshot: which of them nothing notices."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from multiseg.errors import MultisegError


def unnoticed(files: list[Path], verify: Callable[[], object], step: int = 1) -> tuple[int, list[str]]:
    """Return the number of changes, of every ``step``-th byte, and the places of those after which ``verify`` raises nothing.

    Each byte gets another value, chosen by its position.
    """
    places, changes = [], 0
    for path in files:
        whole = path.read_bytes()
        for at in range(0, len(whole), step):
            changed = bytearray(whole)
            changed[at] ^= random.Random(at).randrange(1, 256)
            path.write_bytes(changed)
            changes += 1
            try:
                verify()
            except MultisegError:
                continue
            places.append(f"{path.name}:{at}")
        path.write_bytes(whole)
    verify()
    return changes, places
