"""Read and write neutral weights: state_dicts, and Torch7's .t7 files (read only). Runs in the backend's process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from multiseg.errors import ModelError, setting
from multiseg.files import read_bytes
from multiseg.network import Array, check_weights
from multiseg.worker import choice
from multiseg_torch import files, tensors_only
from multiseg_torch.kinds import is_t7
from multiseg_torch.torch7 import snapshot
from multiseg_torch.weights import FLAT, named, neutral_name, neutral_weights


def write(
    path: str,
    weights: Mapping[str, Array],
    network: str | None,
    input_shape: list[int] | None,
    others: Mapping[str, Array],
) -> dict[str, list[str]]:
    """See multiseg.model_files. What is written loads with ``model.load_state_dict(torch.load(path))``."""
    if network is None:
        torch.save(_of_names(weights), path)
        return {"taken": [], "started": []}
    if input_shape is None:
        raise ModelError(
            f"{network}: does not say for which images it is; give "
            f"{setting('input_shape', example='(channels, height, width)')}"
        )
    channels, height, width = input_shape
    torch.manual_seed(0)
    own = files.load(network, (channels, height, width)).model.state_dict()
    cut = bool(choice.read(network).outputs)  # then the weights of other layers are left out
    names = {name: neutral_name(name) for name, value in own.items() if value.is_floating_point()}
    shapes = {neutral: tuple(own[name].shape) for name, neutral in names.items()}
    taken = [name for name in shapes if name not in weights and name in others and others[name].shape == shapes[name]]
    values = {**weights, **{name: others[name] for name in taken}}
    check_weights(network, {name: shape for name, shape in shapes.items() if name in values}, values)
    state = {
        name: _tensor(values[names[name]]).to(value.dtype) if names.get(name) in values else value.clone()
        for name, value in own.items()
        if not cut or names.get(name) in values or _counter(name, values)
    }
    torch.save(state, path)
    return {"taken": taken, "started": [] if cut else [name for name in shapes if name not in values]}


def _counter(name: str, values: Mapping[str, Array]) -> bool:
    """Return whether an array is the count of batches of a normalisation whose statistics are among the values."""
    layer, _, part = name.rpartition(".")
    return part == "num_batches_tracked" and f"{layer}.running_var" in values


def _of_names(weights: Mapping[str, Array]) -> dict[str, Tensor]:
    state = {}
    for name, value in weights.items():
        state[name] = _tensor(value)
        layer, _, part = name.rpartition(".")
        if part == "running_var":  # batch normalization also counts its batches
            state[f"{layer}.num_batches_tracked"] = torch.tensor(0)
    return state


def _tensor(value: Array) -> Tensor:
    return torch.from_numpy(np.array(value, order="C"))


WRAPPED = (  # common keys of the state_dict in a checkpoint
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
)
WRAPPERS = ("module.", "_orig_mod.")  # prefixes that nn.DataParallel and torch.compile add to every name
SAVE_AGAIN = "save weights with torch.save(model.state_dict(), path)"


def read(path: str) -> dict[str, Array]:
    """Return the neutral weights of a file. Raise ModelError, naming the file, if it cannot be read."""
    try:
        head = read_bytes(path, 1 << 16)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    if is_t7(head, Path(path)):
        found = snapshot.weights(path)
        if isinstance(found, np.ndarray):
            return {FLAT: found}
        return {name: value.numpy() for name, value in neutral_weights(found).items()}
    return {name: value.float().numpy() for name, value in named(_state(path)).items()}


def _state(path: str) -> dict[str, Tensor]:
    try:
        loaded = tensors_only.load(path)
    except Exception as error:  # of many classes: pickle's, zipfile's, torch's own
        if isinstance(error, EOFError) or "PytorchStreamReader" in str(error) or "truncated" in str(error):
            raise ModelError(f"{path}: is cut short or damaged; write or copy it again") from error
        why = next((line.strip() for line in str(error).splitlines() if "Unsupported" in line or "GLOBAL" in line), "")
        why = why or (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{path}: holds more than tensors, or is damaged, and is not unpickled; {SAVE_AGAIN} ({why[:160]})"
        ) from error
    wrapped = [_tensors(loaded[name]) for name in WRAPPED if isinstance(loaded, dict) and name in loaded]
    state = next(filter(None, wrapped), None) or _tensors(loaded)
    if not state:
        keys = ", ".join(map(str, list(loaded)[:6])) if isinstance(loaded, dict) else type(loaded).__name__
        raise ModelError(f"{path}: holds no state_dict but {keys or 'nothing'}; {SAVE_AGAIN}")
    while prefix := next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in state)), None):
        state = {name[len(prefix) :]: value for name, value in state.items()}
    return state


def _tensors(loaded: object) -> dict[str, Tensor]:
    """Return the tensors among the entries of what a file holds; none if it is no dict."""
    entries = loaded.items() if isinstance(loaded, dict) else ()
    values = {
        str(name): value.tensor if isinstance(value, tensors_only.StoredArray) else value for name, value in entries
    }
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
