"""Weights files: state_dicts that torch.save wrote, and Torch7's .t7."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multiseg.errors import ModelError
from multiseg.network import Array
from multiseg_torch.kinds import is_t7
from multiseg_torch.torch7 import snapshot

FLAT = "parameters"  # the one name of a vector that holds all parameters in the network's order
WRAPPED = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
)  # under which people save it beside other things
PARALLEL = "module."  # what nn.DataParallel puts before every name
MEND = "save weights with torch.save(model.state_dict(), path)"


def named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Neutral weights of a state_dict, sharing its memory: ``layer.part``, where the network itself is layer ``model``.

    What is no floating-point number is no weight, such as BatchNorm's count of batches.
    """
    return {neutral_name(name): value.detach() for name, value in state.items() if value.is_floating_point()}


def neutral_name(name: str) -> str:
    """Of a parameter or buffer, from PyTorch's."""
    return name if "." in name else f"model.{name}"


def of(model: nn.Module) -> dict[str, Tensor]:
    """A model's neutral weights, sharing its memory."""
    return named(model.state_dict())


def put(model: nn.Module, path: str, values: Mapping[str, Array]) -> Mapping[str, Array]:
    """``values``, where they are one vector cut up in the order of the model's parameters. Raises ModelError."""
    if set(values) != {FLAT}:
        return values
    flat = np.ravel(values[FLAT])
    state = of(model)
    wanted = [neutral_name(name) for name, _ in model.named_parameters()]
    count = sum(state[name].numel() for name in wanted)
    if count != flat.size:
        raise ModelError(f"{path}: has {count} parameters, the vector of weights holds {flat.size} numbers")
    cut = np.split(flat, np.cumsum([state[name].numel() for name in wanted])[:-1])
    found = {name: part.reshape(tuple(state[name].shape)) for name, part in zip(wanted, cut)}
    # statistics of batch normalisation are no parameters: they stay
    return {name: found.get(name, state[name].cpu().numpy()) for name in state}


def read(path: str) -> dict[str, Array]:
    """Neutral weights of a file. Raises ModelError naming it."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if is_t7(head, Path(path)):
        found = snapshot.weights(path)
        if isinstance(found, np.ndarray):
            return {FLAT: found}
        return {name: value.numpy() for name, value in of(found).items()}
    return {name: value.float().numpy() for name, value in named(_state(path)).items()}


def _state(path: str) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds: pickle's, zipfile's, torch's own
        if isinstance(error, EOFError) or "PytorchStreamReader" in str(error) or "truncated" in str(error):
            raise ModelError(f"{path}: is cut short or damaged; write or copy it again") from error
        why = next((line.strip() for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), "")
        why = why or (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{path}: holds more than tensors, or is damaged, and is not unpickled; {MEND} ({why[:160]})"
        ) from error
    wrapped = [loaded[name] for name in WRAPPED if isinstance(loaded, dict) and isinstance(loaded.get(name), dict)]
    state: Any = wrapped[0] if wrapped else loaded
    if isinstance(state, dict):
        state = {name: value for name, value in state.items() if not str(name).startswith("_")}
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(state)[:6])) if isinstance(state, dict) else type(state).__name__
        raise ModelError(f"{path}: holds no state_dict but {keys or 'nothing'}; {MEND}")
    if all(str(name).startswith(PARALLEL) for name in state):
        state = {str(name)[len(PARALLEL) :]: value for name, value in state.items()}
    return {str(name): value for name, value in state.items()}
