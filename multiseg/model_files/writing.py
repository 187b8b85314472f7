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
    """Write neutral weights as the backend's own file, and return the result of its writer.

    See multiseg.topology.interfaces.WeightsWriter. Raises ModelError, also if the backend cannot write weights.
    """
    if backend.writer is None:
        raise ModelError(f"{path}: backend {backend.name!r} reads weights, but cannot write them")
    module, _, function = backend.writer.partition(":")
    arguments = {
        "path": str(path.resolve()),
        "weights": dict(weights),
        "network": None if network is None else str(network.resolve()),
        "input_shape": None if input_shape is None else list(input_shape),
        "others": dict(others or {}),
    }
    names: dict[str, list[str]] = call(backend, module, function, backend.writer_needs_framework, worker, arguments)
    return names


def check_output(path: Path, inputs: Iterable[Path | None]) -> None:
    """Raise SettingsError if a file cannot be written, or is one of ``inputs`` or of the files that belong to them."""
    real = target(path)
    for input_path in inputs:
        input_files = [] if input_path is None else [input_path, *parts(input_path)]
        if any(real == Path(os.path.realpath(part)) for part in input_files):
            raise SettingsError(f"{path}: would overwrite the input {input_path}; specify another file to write")
