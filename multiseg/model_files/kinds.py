"""Recognise the kind of a network or weights file from its content."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from multiseg import backend as registry
from multiseg.backend import Backend, FileKind
from multiseg.errors import ModelError
from multiseg.files import read_bytes
from multiseg.model_files import weights_file
from multiseg.worker import choice

HEAD = 1 << 16  # bytes at the beginning of a file that identify its kind


def kind_of(path: Path, holds: Literal["network", "weights"]) -> tuple[Backend, FileKind]:
    """Return backend and kind of a file by its content and, if several kinds match, by its extension.

    Raises ModelError naming the file, what it contains and which kinds are expected.
    """
    head = head_of(path)
    if holds == "network" and head.startswith(choice.HEAD):
        return kind_of(choice.read(path).file, holds)
    kinds = [(backend, kind) for backend in registry.installed() for kind in backend.kinds]
    matching = [(backend, kind) for backend, kind in kinds if kind.recognise(head, path)]
    candidates = [(backend, kind) for backend, kind in matching if kind.holds == holds]
    if len(candidates) > 1:
        candidates = [each for each in candidates if path.suffix in each[1].extensions] or candidates
    if len(candidates) == 1:
        return candidates[0]
    names = [f"{kind.name} ({', '.join(kind.extensions) or 'a folder'})" for _, kind in kinds if kind.holds == holds]
    expected = "; ".join([*names, *(["safetensors (.safetensors)"] if holds == "weights" else [])])
    if candidates:
        raise ModelError(
            f"{path}: may be a {' or a '.join(kind.name for _, kind in candidates)}; rename it with one of their extensions"
        )
    if holds == "network" and weights_file.recognised(head):
        raise ModelError(f"{path}: is a safetensors file, which contains weights; expected is: {expected}")
    if matching and matching[0][1].instead:
        raise ModelError(f"{path}: is a {matching[0][1].name}, which is not read; {matching[0][1].instead}")
    if path.suffix == ".onnx":
        raise ModelError(
            f"{path}: ONNX files are written (multiseg export) and compared (multiseg parity), but not read; name the {holds} "
            "file that it was exported from"
        )
    if matching:
        raise ModelError(
            f"{path}: is a {matching[0][1].name}, which contains {matching[0][1].holds}; expected is: {expected}"
        )
    raise ModelError(
        f"{path}: is not a {holds} file of a known kind; expected is: {expected}; found {_looks(head, path)}"
    )


def is_network(path: Path) -> bool:
    """Return whether a file is of a kind that contains a network."""
    try:
        return bool(kind_of(path, "network"))
    except ModelError:
        return False


def needs_network(path: Path) -> bool:
    """Return whether a weights file leaves names or types of layers to its network; False for files of no known kind."""
    try:
        return not weights_file.recognised(head_of(path)) and kind_of(path, "weights")[1].needs_network
    except ModelError:  # reading it reports this
        return False


def head_of(path: Path) -> bytes:
    """Return the first HEAD bytes of a file, empty for a folder. Raises ModelError if it cannot be read."""
    if path.is_dir():
        return b""
    try:
        return read_bytes(path, HEAD)
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
