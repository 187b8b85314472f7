"""Recognise the kind of a network or weights file from its content."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from multiseg import backend as registry
from multiseg.backend import Backend, FileKind
from multiseg.errors import ModelError
from multiseg.model_files import weights_file

HEAD = 1 << 16  # bytes by which a kind is told


def kind_of(path: Path, holds: Literal["network", "weights"]) -> tuple[Backend, FileKind]:
    """The backend and kind of a file, told from its content; where several would do, from its extension as well.

    Raises ModelError saying what is there and what is expected.
    """
    head = head_of(path)
    kinds = [(backend, kind) for backend in registry.installed() for kind in backend.kinds]
    found = [(backend, kind) for backend, kind in kinds if kind.recognise(head, path)]
    wanted = [(backend, kind) for backend, kind in found if kind.holds == holds]
    if len(wanted) > 1:
        wanted = [each for each in wanted if path.suffix in each[1].extensions] or wanted
    if len(wanted) == 1:
        return wanted[0]
    names = [f"{kind.name} ({', '.join(kind.extensions) or 'a folder'})" for _, kind in kinds if kind.holds == holds]
    known = "; ".join([*names, *(["safetensors (.safetensors)"] if holds == "weights" else [])])
    if wanted:
        raise ModelError(
            f"{path}: may be a {' or a '.join(kind.name for _, kind in wanted)}; name it with one of their extensions"
        )
    if holds == "network" and weights_file.recognised(head):
        raise ModelError(f"{path}: is safetensors, which holds weights; expected is: {known}")
    if found:
        raise ModelError(f"{path}: is a {found[0][1].name}, which holds {found[0][1].holds}; expected is: {known}")
    raise ModelError(f"{path}: is no {holds} file of a known kind; expected is: {known}; found {_looks(head, path)}")


def is_network(path: Path) -> bool:
    """Whether a file is of a kind that holds a network."""
    try:
        return bool(kind_of(path, "network"))
    except ModelError:
        return False


def head_of(path: Path) -> bytes:
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        if path.with_name(path.name + ".index").is_file():  # a TensorFlow checkpoint is named by a prefix
            return b""
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error


def _looks(head: bytes, path: Path) -> str:
    if path.is_dir():
        return "a folder"
    if not head:
        return "an empty file"
    try:
        text = head.decode()
    except UnicodeDecodeError:
        return f"binary data, {head[:8].hex(' ')} ..."
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"text that begins with {first[:60]!r}"
