"""Describe network files and read weights files of any backend; multiseg.topology.interfaces says what a backend implements.

Neutral weights themselves are kept as safetensors, see multiseg.model_files.weights_file; those the core reads itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from multiseg.errors import ModelError, setting
from multiseg.model_files import weights_file
from multiseg.model_files.calling import ask
from multiseg.model_files.kinds import head_of, kind_of
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.topology import Topology
from multiseg.worker.client import Worker


def describe(
    file: str | Path, input_shape: tuple[int, int, int] | None = None, worker: Worker | None = None
) -> Topology:
    """The network in ``file``, of any backend's formats, for images of ``input_shape`` (C, H, W).

    Without a shape the file's own is taken. A network file written in Python is executed, in its backend's process, or in
    ``worker``, where one is at hand. Raises ModelError naming the file, and BackendUnavailable where the file needs a
    framework that is not there.
    """
    path = Path(file)
    backend, kind = kind_of(path, "network")
    shape = None if input_shape is None else [int(size) for size in input_shape]
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        raise ModelError(
            f"{setting('input_shape', tuple(shape))}: must be three numbers from 1: channels, height, width"
        )
    description = ask(backend, "describe", worker, path=str(path.resolve()), input_shape=shape)
    return Topology.of(path.name, kind.name, description)


def read_weights(file: str | Path) -> Mapping[str, npt.NDArray[np.float32]]:
    """Neutral weights from a safetensors file, or one of any backend's formats. Raises ModelError naming the file."""
    return read_neutral(file).weights


def read_neutral(
    file: str | Path, network: Path | None = None, input_shape: tuple[int, int, int] | None = None,
    worker: Worker | None = None,
) -> NeutralWeights:  # fmt: skip
    """The same, with all that the file says of them; the order of the colours is that of the file's backend.

    ``network`` is the file of the network that they belong to, for images of ``input_shape`` (C, H, W), where it is known.
    """
    path = Path(file)
    if weights_file.recognised(head_of(path)):
        return weights_file.read(path)
    backend, _ = kind_of(path, "weights")
    more = {}
    if network is not None and input_shape is not None and kind_of(network, "network")[0] == backend:
        more = {"network": str(network.resolve()), "input_shape": list(input_shape)}
    weights = ask(backend, "read_weights", worker, path=str(path.resolve()), **more)
    return NeutralWeights(weights, backend.channel_order)
