"""The neutral weights file: safetensors of float32 arrays ``layer.part``, with the solver's state for resuming training.

Its metadata contain ``format`` = multiseg, ``channel_order`` (of the network's input images) and ``solver`` (JSON: name, step,
rate etc.). The arrays of the solver's state are called ``solver/SLOT/PARAMETER``, e.g. ``solver/momentum/conv1.weight``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.backend import ChannelOrder
from multiseg.errors import ModelError, setting
from multiseg.files import parse_json, read_bytes, write_bytes

FORMAT = "multiseg"
GOLDEN = "multiseg golden"  # format of the golden files of multiseg.parity
SOLVER = "solver/"  # prefix of the names of solver arrays

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NeutralWeights:
    """Weights by ``layer.part``, and the channel order of the network's input images, None if unknown.

    ``state`` are the arrays of a solver's state by ``SLOT/PARAMETER``; ``solver`` is the rest of its state as plain values,
    None if there is no solver.
    """

    weights: Mapping[str, Array]
    channel_order: ChannelOrder | None = None
    state: Mapping[str, Array] = field(default_factory=dict)
    solver: Mapping[str, Any] | None = None

    def without_prefix(self, parameters: Collection[str]) -> NeutralWeights:
        """Return the weights of a network with these parameters that the file stores as part of another module.

        A training program's module may hold it under a name such as ``net.``. If names fit as they are, or if not exactly one
        prefix ends in a dot and leaves the names of most parameters, all weights are returned as they are; else those with this
        prefix, without it.
        """
        names = set(parameters)
        if not names.isdisjoint(self.weights):
            return self
        prefixes: Counter[str] = Counter()
        for name in self.weights:
            parts = name.split(".")
            starts = (".".join(parts[:count]) + "." for count in range(1, len(parts)))
            prefixes.update(start for start in starts if name[len(start) :] in names)
        fitting = [prefix for prefix, count in prefixes.items() if count > len(names) / 2]
        if len(fitting) != 1:
            return self
        prefix = fitting[0]
        own = {name[len(prefix) :]: value for name, value in self.weights.items() if name.startswith(prefix)}
        return replace(self, weights=own)


def recognised(head: bytes) -> bool:
    """Return whether a file with this beginning is safetensors: eight bytes with the length of the JSON header, then the header.

    See https://github.com/huggingface/safetensors#format.
    """
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27


def is_one(path: Path) -> bool:
    """Return whether a file is safetensors."""
    return path.is_file() and recognised(read_bytes(path, 16))


def write(path: Path, content: NeutralWeights) -> None:
    """Write a file atomically. Raises ModelError for a weight that has the name of a solver array."""
    from safetensors.numpy import save

    reserved = next((name for name in content.weights if name.startswith(SOLVER)), None)
    if reserved is not None:
        raise ModelError(
            f"{path}: weight {reserved!r}: names that begin with {SOLVER!r} are reserved for solver state; rename the layer"
        )
    metadata = {"format": FORMAT}
    if content.channel_order is not None:
        metadata["channel_order"] = content.channel_order
    if content.solver is not None:
        metadata["solver"] = json.dumps(content.solver)
    named = {**content.weights, **{SOLVER + name: value for name, value in content.state.items()}}
    # safetensors writes an array's memory without regard to its strides
    arrays = {name: np.array(value, np.float32, order="C") for name, value in named.items()}
    write_bytes(path, save(arrays, metadata))


def read(path: Path) -> NeutralWeights:
    """Return the content of a file; one not written by multiseg has weights only. Raises ModelError naming the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name).astype(np.float32, copy=False) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors: {error}") from error
    if metadata.get("format") == GOLDEN:
        raise ModelError(
            f"{path}: is a golden file of parity, not weights; specify it with {setting('against', example='FILE')}"
        )
    if metadata.get("format") != FORMAT:
        return NeutralWeights(arrays)
    order = metadata.get("channel_order")
    if order not in (None, "RGB", "BGR"):
        raise ModelError(f"{path}: channel_order={order!r} in its metadata: must be RGB or BGR")
    return NeutralWeights(
        weights={name: value for name, value in arrays.items() if not name.startswith(SOLVER)},
        channel_order=order,
        state={name.removeprefix(SOLVER): value for name, value in arrays.items() if name.startswith(SOLVER)},
        solver=_solver(path, metadata.get("solver")),
    )


def _solver(path: Path, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        state = parse_json(text)
    except ValueError as error:
        raise ModelError(f"{path}: solver in its metadata is not valid JSON: {error}") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path}: solver in its metadata is not a JSON object")
    return state
