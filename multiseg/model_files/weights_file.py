"""The neutral weights file: safetensors of float32 arrays, ``layer.part``, with what a training needs to go on from them.

Its metadata say ``format`` = multiseg, ``channel_order`` (of the images that the network is fed) and ``solver`` (JSON: name,
step, rate and the like). What the solver keeps is there as ``solver/SLOT/PARAMETER``, e.g. ``solver/momentum/conv1.weight``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.backend import ChannelOrder
from multiseg.errors import ModelError
from multiseg.files import write_bytes

FORMAT = "multiseg"
SOLVER = "solver/"  # before the names of what is no weight

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class NeutralWeights:
    """Weights by ``layer.part``, and where known the order of the colours that their network is fed.

    ``state`` is what a solver keeps, by ``SLOT/PARAMETER``, and ``solver`` what else there is to know of it, as plain values;
    None where there is no solver.
    """

    weights: Mapping[str, Array]
    channel_order: ChannelOrder | None = None
    state: Mapping[str, Array] = field(default_factory=dict)
    solver: Mapping[str, Any] | None = None


def recognised(head: bytes) -> bool:
    """Whether a file that begins so is safetensors: eight bytes of length, then that much JSON.

    See https://github.com/huggingface/safetensors#format.
    """
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27


def is_one(path: Path) -> bool:
    """Whether a file is safetensors."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return recognised(file.read(16))


def write(path: Path, content: NeutralWeights) -> None:
    """Write a file whole, or leave what is there. Raises ModelError for a weight that is named as a solver's array."""
    from safetensors.numpy import save

    wrong = next((name for name in content.weights if name.startswith(SOLVER)), None)
    if wrong is not None:
        raise ModelError(f"{path}: weight {wrong!r}: names that begin with {SOLVER!r} are a solver's; rename the layer")
    metadata = {"format": FORMAT}
    if content.channel_order is not None:
        metadata["channel_order"] = content.channel_order
    if content.solver is not None:
        metadata["solver"] = json.dumps(content.solver)
    named = {**content.weights, **{SOLVER + name: value for name, value in content.state.items()}}
    # safetensors writes an array's memory as it lies, whatever its strides
    arrays = {name: np.array(value, np.float32, order="C") for name, value in named.items()}
    write_bytes(path, save(arrays, metadata))


def read(path: Path) -> NeutralWeights:
    """What is in a file; one from elsewhere holds weights alone. Raises ModelError naming it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name).astype(np.float32, copy=False) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors: {error}") from error
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
        said = json.loads(text)
    except ValueError as error:
        raise ModelError(f"{path}: solver in its metadata is no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ModelError(f"{path}: solver in its metadata is no JSON object")
    return said
