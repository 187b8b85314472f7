"""Write neutral weights as a backend's own file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from multiseg.backend import Backend
from multiseg.errors import ModelError, SettingsError
from multiseg.files import target
from multiseg.model_files.calling import call
from multiseg.model_files.copies import parts
from multiseg.worker.client import Worker


def write_weights(
    backend: Backend, path: Path, weights: Mapping[str, npt.NDArray[np.float32]], network: Path | None,
    input_shape: tuple[int, int, int] | None, worker: Worker | None = None,
    others: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> dict[str, list[str]]:  # fmt: skip
    """Write neutral weights as the backend's own file: see above. Raises ModelError also where it writes none."""
    if backend.writer is None:
        raise ModelError(f"{path}: backend {backend.name!r} reads weights, but writes none")
    module, _, function = backend.writer.partition(":")
    arguments = {
        "path": str(path.resolve()),
        "weights": dict(weights),
        "network": None if network is None else str(network.resolve()),
        "input_shape": None if input_shape is None else list(input_shape),
        "others": dict(others or {}),
    }
    found: dict[str, list[str]] = call(backend, module, function, backend.writer_needs_framework, worker, arguments)
    return found


def check_output(path: Path, inputs: Iterable[Path | None]) -> None:
    """Raise SettingsError where a file cannot be written, or is one of ``inputs``, or belongs to one."""
    real = target(path)
    for each in inputs:
        own = [] if each is None else [each, *parts(each)]
        if any(real == Path(os.path.realpath(part)) for part in own):
            raise SettingsError(f"{path}: would replace what is read, {each}; name another file to write")
