"""Copy, compare and hash network files with all files that belong to them."""

from __future__ import annotations

import filecmp
import glob
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from multiseg.errors import ModelError
from multiseg.files import read_bytes, sha256_of, write_text
from multiseg.model_files.imports import helpers
from multiseg.model_files.kinds import kind_of
from multiseg.worker import choice


def copy(path: Path, folder: Path, more: Iterable[str] = ()) -> None:
    """Copy a network file, with all files that belong to it, into an existing folder.

    ``more`` are further files that it used when it was loaded, relative to its folder; a file elsewhere is copied beside it.
    """
    chosen = choice.read(path)
    for name, source in named_parts(path, more).items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source == path and chosen.file != path:
            write_text(target, chosen.to_json(root="."))
        else:
            shutil.copyfile(source, target)


def named_parts(path: Path, more: Iterable[str] = ()) -> dict[str, Path]:
    """Return the files that :func:`copy` copies, by their names in the folder of the copy."""
    root = choice.read(path).root
    further = [Path(os.path.normpath(root / name)) for name in more]
    files = dict.fromkeys([*parts(path), *(source for source in further if source.is_file())])
    return {
        (source.relative_to(root).as_posix() if source.is_relative_to(root) else source.name): source
        for source in files
    }


def changed(path: Path, copy: Path, except_for: str | None = None) -> str | None:
    """Return the name of the first file that differs between a network file and its copy; None if there is none.

    Compared are the network file, what belongs to its kind, and all files in the folder of the copy but ``except_for``. A copy
    that was made without the modules that the file imports is not different.
    """
    chosen = choice.read(path), choice.read(copy)
    if choice.is_choice(copy):
        if chosen[0].to_json(root="") != chosen[1].to_json(root=""):
            return path.name
        except_for = copy.name
    roots = [one.root for one in chosen]
    ours, theirs = ({part.relative_to(one.root) for part in _of_kind(one.file)} for one in chosen)
    copied = {name for name in _files(copy.parent) if name.as_posix() != except_for}
    for name in sorted(ours | theirs | copied):
        files = roots[0] / name, roots[1] / name
        if path.suffix == ".prototxt" and name.name != path.name and not files[0].exists():
            continue  # was copied from elsewhere; the run has its own copy
        if not all(file.is_file() for file in files) or not filecmp.cmp(*files, shallow=False):
            return str(name)
    return None


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file in a folder, by its path relative to the folder."""
    return {name.as_posix(): sha256_of(folder / name) for name in _files(folder)}


def _files(folder: Path) -> list[Path]:
    files = (file.relative_to(folder) for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if "__pycache__" not in file.parts]


def fingerprint(path: Path) -> str:
    """Return the first twelve hex digits of the SHA-256 of a network file with all files that belong to it."""
    digest = hashlib.sha256()
    chosen = choice.read(path)
    for part in parts(path):
        own = part == path and chosen.file != path
        digest.update(chosen.to_json(root="").encode() if own else read_bytes(part))
    return digest.hexdigest()[:12]


def parts(path: Path) -> list[Path]:
    """Return the files that a network file consists of: those of its kind, and for Python the modules that it imports."""
    chosen = choice.read(path)
    own = _of_kind(chosen.file)
    if chosen.file.suffix == ".py":
        own += [helper for helper in helpers(chosen.file, chosen.root) if helper not in own]
    return own if chosen.file == path else [path, *own]


def _of_kind(path: Path) -> list[Path]:
    """Return a network file and the files beside it that its kind declares."""
    try:
        beside = kind_of(path, "network")[1].beside
    except ModelError:  # of no known kind: the backend reports this on loading
        beside = ()
    if not path.exists():
        return []
    patterns = [pattern.format(name=glob.escape(path.name), stem=glob.escape(path.stem)) for pattern in beside]
    inside = [part for part in sorted(path.rglob("*")) if part.is_file()] if path.is_dir() else [path]
    return inside + sorted(part for pattern in patterns for part in path.parent.glob(pattern))
