"""Read PyTorch's files of tensors; nothing else in them is unpickled."""

from __future__ import annotations

import pickle
import types
from pathlib import Path
from typing import Any

import torch

LONGEST = 1000  # characters of an error's message

_unpickler: Any = torch.serialization._weights_only_unpickler  # type: ignore[attr-defined]


class _Unpickler(_unpickler.Unpickler):  # type: ignore[misc]
    """PyTorch's unpickler of tensors, with errors of a bounded length.

    ``torch.load`` (2.13) searches the message of an error for ``(\\S+) must be (\\S+) to load``, which takes time quadratic in
    the message's length: minutes for a name of some 100,000 characters in a damaged file.
    """

    def load(self) -> Any:
        try:
            return super().load()
        except pickle.UnpicklingError as error:
            raise pickle.UnpicklingError(str(error)[:LONGEST]) from error


def _load(file: Any, *, encoding: str = "ASCII") -> Any:
    return _Unpickler(file, encoding=encoding).load()


_BOUNDED = types.SimpleNamespace(**{**vars(_unpickler), "Unpickler": _Unpickler, "load": _load})


def load(path: str | Path, device: Any = "cpu", mapped: bool = False) -> Any:
    """Return what ``torch.load(weights_only=True)`` reads from a file, with all tensors on a device. Raises its errors.

    ``mapped`` tensors are read from the file when they are used, so that it costs nothing to leave some of them out.
    """
    torch.serialization._weights_only_unpickler = _BOUNDED  # type: ignore[attr-defined]
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    finally:
        torch.serialization._weights_only_unpickler = _unpickler  # type: ignore[attr-defined]
