"""Read PyTorch's files of tensors; nothing else in them is unpickled.

Checkpoints often hold options and scores beside the tensors. The classes of these are replaced by classes of this module, which
run nothing and import nothing; only an array's numbers are kept.
"""

from __future__ import annotations

import math
import pickle
import re
import types
from pathlib import Path
from typing import Any

import numpy as np
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


class Unread:
    """What stands for an object that is not read, such as options or a score."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        """Ignore the object's content."""


class DataType(Unread):
    """A NumPy data type: the ``code`` of integers, booleans and floating-point numbers, such as ``<f4``; else None."""

    code: str | None = None

    def __setstate__(self, state: Any) -> None:
        """Take the byte order from ``(version, order, ...)``, as numpy.dtype writes it."""
        name = self.arguments[0] if self.arguments else None
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if isinstance(name, str) and re.fullmatch(r"b1|[iu][1248]|f[248]", name) and order in ("<", ">", "|", "="):
            self.code = f"{order}{name}"


class StoredArray(Unread):
    """A NumPy array; ``tensor`` holds its numbers, None if they are not numbers."""

    tensor: torch.Tensor | None = None

    def __setstate__(self, state: Any) -> None:
        """Take the numbers from ``(version, shape, dtype, is_fortran, bytes)``, as numpy.ndarray writes it."""
        _, shape, kind, is_fortran, data = state
        if not isinstance(kind, DataType) or kind.code is None or not isinstance(data, bytes):
            return
        dtype = np.dtype(kind.code)
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise pickle.UnpicklingError(f"an array of the shape {shape} has {len(data)} bytes")
        values = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
        self.tensor = torch.from_numpy(values.astype(dtype.newbyteorder("="), order="C"))


def _standing_for(name: str, base: type[Unread]) -> type[Unread]:
    """Return the class that PyTorch's unpickler uses for ``name``; each name needs its own."""
    module, _, own = name.rpartition(".")
    return type(own, (base,), {"__module__": module})


_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
STAND_INS = [
    _standing_for(name, base)
    for base, names in {
        Unread: (
            "argparse.Namespace",
            *(f"{module}.{path}" for module in ("pathlib", "pathlib._local") for path in _PATHS),
            *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
            "numpy.ndarray",  # an argument of what follows
        ),
        StoredArray: [f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")],
        DataType: ["numpy.dtype"],
    }.items()
    for name in names
]

_BOUNDED = types.SimpleNamespace(**{**vars(_unpickler), "Unpickler": _Unpickler, "load": _load})


def load(path: str | Path, device: Any = "cpu", mapped: bool = False) -> Any:
    """Return what ``torch.load(weights_only=True)`` reads from a file, with all tensors on a device. Raises its errors.

    Objects of the STAND_INS's names are of these classes; other classes are an error, also those that a program has declared
    safe. ``mapped`` tensors are read from the file when they are used, so that it costs nothing to leave some of them out.
    """
    declared = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(STAND_INS)
    torch.serialization._weights_only_unpickler = _BOUNDED  # type: ignore[attr-defined]
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=mapped)
    finally:
        torch.serialization._weights_only_unpickler = _unpickler  # type: ignore[attr-defined]
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(declared)
