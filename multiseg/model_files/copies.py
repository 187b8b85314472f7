"""Copy, compare and hash network files with all files that belong to them."""

from __future__ import annotations

import filecmp
import glob
import hashlib
import shutil
from pathlib import Path

from multiseg.errors import ModelError
from multiseg.model_files.kinds import kind_of


def copy(path: Path, folder: Path) -> None:
    """Copy a network file, with all files that belong to it, into an existing folder."""
    for source in parts(path):
        target = folder / source.relative_to(path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def same(path: Path, other: Path) -> bool:
    """Return whether two network files of the same name, with all files that belong to them, have the same content."""
    ours, theirs = ({part.relative_to(each.parent): part for part in parts(each)} for each in (path, other))
    return ours.keys() == theirs.keys() and all(
        filecmp.cmp(part, theirs[name], shallow=False) for name, part in ours.items()
    )


def fingerprint(path: Path) -> str:
    """Return the first twelve hex digits of the SHA-256 of a network file with all files that belong to it."""
    digest = hashlib.sha256()
    for part in parts(path):
        digest.update(part.read_bytes())
    return digest.hexdigest()[:12]


def parts(path: Path) -> list[Path]:
    """Return the files that a network file consists of."""
    try:
        beside = kind_of(path, "network")[1].beside
    except ModelError:  # of no known kind: the backend reports this on loading
        beside = ()
    if not path.exists():
        return []
    patterns = [pattern.format(name=glob.escape(path.name), stem=glob.escape(path.stem)) for pattern in beside]
    inside = [part for part in sorted(path.rglob("*")) if part.is_file()] if path.is_dir() else [path]
    return inside + sorted(part for pattern in patterns for part in path.parent.glob(pattern))
