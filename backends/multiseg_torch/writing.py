"""Writing neutral weights as a state_dict. Runs in the backend's process."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from multiseg.errors import ModelError
from multiseg.network import Array, check_weights
from multiseg_torch import files
from multiseg_torch.neutral import neutral_name


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
        raise ModelError(f"{network}: does not say for which images it is; give input_shape=(channels, height, width)")
    channels, height, width = input_shape
    torch.manual_seed(0)
    own = files.load(network, (channels, height, width)).model.state_dict()
    names = {name: neutral_name(name) for name, value in own.items() if value.is_floating_point()}
    shapes = {neutral: tuple(own[name].shape) for name, neutral in names.items()}
    taken = [name for name in shapes if name not in weights and name in others and others[name].shape == shapes[name]]
    values = {**weights, **{name: others[name] for name in taken}}
    check_weights(network, {name: shape for name, shape in shapes.items() if name in values}, values)
    state = {
        name: _tensor(values[names[name]]).to(value.dtype) if names.get(name) in values else value.clone()
        for name, value in own.items()
    }
    torch.save(state, path)
    return {"taken": taken, "started": [name for name in shapes if name not in values]}


def _of_names(weights: Mapping[str, Array]) -> dict[str, Tensor]:
    state = {}
    for name, value in weights.items():
        state[name] = _tensor(value)
        layer, _, part = name.rpartition(".")
        if part == "running_var":  # a batch normalisation counts its batches, too
            state[f"{layer}.num_batches_tracked"] = torch.tensor(0)
    return state


def _tensor(value: Array) -> Tensor:
    return torch.from_numpy(np.array(value, order="C"))
