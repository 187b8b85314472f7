"""Describe network files and read weights files of any backend; multiseg.topology.interfaces defines what a backend implements.

Neutral weights are stored as safetensors, which is read without a backend (multiseg.model_files.weights_file).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from multiseg.errors import ModelError, setting
from multiseg.model_files import weights_file
from multiseg.model_files.calling import ask
from multiseg.model_files.choosing import path_of
from multiseg.model_files.kinds import head_of, kind_of
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.topology import Topology
from multiseg.topology.cutting import cut
from multiseg.worker import choice
from multiseg.worker.client import Worker


def describe(
    file: str | Path,
    input_shape: tuple[int, int, int] | None = None,
    worker: Worker | None = None,
    classes: int | None = None,
    model_options: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = (),
) -> Topology:
    """Return the topology of the network in ``file``, of any backend's format, for images of ``input_shape`` (C, H, W).

    ``file`` may be the name of a network (multiseg.model_files.shipped), or ``FILE.py:NAME(ARGUMENTS)``, a class or function of a
    file, with Python literals as arguments. ``classes`` is the number of outputs of a network chosen by name, or of a file that
    leaves it open; ``model_options`` are global variables that a Lua file reads, ``{"opt.depth": 18}``. ``outputs`` are the names
    of layers that the network is cut to: those layers and the layers that they need.
    Default: the input shape in the file. A network file written in Python is executed, in ``worker`` or else in a new process of
    its backend. Raises ModelError naming the file, and BackendUnavailable if the file needs a framework that is not installed.
    """
    channels = None if input_shape is None else int(input_shape[0])
    path = path_of(file, None, classes, channels, model_options, required=True, outputs=outputs)
    backend, kind = kind_of(path, "network")
    shape = None if input_shape is None else [int(size) for size in input_shape]
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        raise ModelError(
            f"{setting('input_shape', tuple(shape))}: must be three integers of at least 1: channels, height, width"
        )
    description = ask(backend, "describe", worker, path=str(path.resolve()), input_shape=shape)
    chosen = choice.read(path)
    topology = replace(Topology.of(chosen.title, kind.name, description), notes=tuple(notes_of_file(path)))
    return cut(topology, chosen.outputs)


def mean_of_file(path: Path) -> list[float] | None:
    """Return the mean that a network file states, a number for each channel, colours as B, G, R; None if it has none.

    Raises ModelError if the file states different ones.
    """
    mean: list[float] | None = _stated(path, "mean")
    return mean


def cropping_of_file(path: Path) -> dict[str, Any]:
    """Return the ``crop``, ``val_crop`` (sides of squares, 0 for none) and ``mirror`` that a network file states.

    Raises ModelError if the file contradicts itself.
    """
    return _stated(path, "cropping") or {"crop": 0, "val_crop": 0, "mirror": False}


def notes_of_file(path: Path) -> list[str]:
    """Return sentences about what a network file leaves ambiguous. Raises ModelError if the file cannot be read."""
    return _stated(path, "notes") or []


def _stated(path: Path, what: Literal["mean", "cropping", "notes"]) -> Any:
    """Return what a network file states, by the function that its backend declares; None without one."""
    try:
        backend, _ = kind_of(path, "network")
    except ModelError:  # of no known kind: loading it reports this
        return None
    declared: str | None = getattr(backend, what)
    if declared is None:
        return None
    module, _, function = declared.partition(":")
    return getattr(importlib.import_module(module), function)(str(path.resolve()))


def read_weights(file: str | Path) -> Mapping[str, npt.NDArray[np.float32]]:
    """Return the neutral weights in a safetensors file or a weights file of any backend. Raises ModelError naming the file."""
    return read_neutral(file).weights


def read_neutral(
    file: str | Path, network: Path | None = None, input_shape: tuple[int, int, int] | None = None,
    worker: Worker | None = None,
) -> NeutralWeights:  # fmt: skip
    """Return neutral weights with their metadata; for a backend's own format, the channel order is that of the backend.

    ``network`` is the network file that the weights belong to, for images of ``input_shape`` (C, H, W), or None if unknown.
    """
    path = Path(file)
    if weights_file.recognised(head_of(path)):
        return weights_file.read(path)
    backend, _ = kind_of(path, "weights")
    network_arguments = {}
    if network is not None and input_shape is not None and kind_of(network, "network")[0] == backend:
        network_arguments = {"network": str(network.resolve()), "input_shape": list(input_shape)}
    weights = ask(backend, "read_weights", worker, path=str(path.resolve()), **network_arguments)
    return NeutralWeights(weights, backend.channel_order)
