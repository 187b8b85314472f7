"""Neutral weights of a PyTorch model: names, and splitting a flat vector into parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from multiseg.errors import ModelError
from multiseg.network import Array

FLAT = "parameters"  # key of a flat vector of all parameters, in the network's order


def named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the neutral weights of a state_dict, named ``layer.part`` and sharing its memory; the root module is ``model``.

    Tensors that are not floating point are left out, and BatchNorm's ``num_batches_tracked``, also one that was made floating
    point with the rest.
    """
    return {
        neutral_name(name): value.detach()
        for name, value in state.items()
        if value.is_floating_point() and name.rpartition(".")[2] != "num_batches_tracked"
    }


def neutral_name(name: str) -> str:
    """Return the neutral name of a parameter or buffer with this name in PyTorch."""
    return name if "." in name else f"model.{name}"


def neutral_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's neutral weights, sharing its memory."""
    return named(model.state_dict())


def shared(model: nn.Module) -> list[list[str]]:
    """Return the neutral names of each parameter that has several, the first as in ``named_parameters``."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(neutral_name(name))
    return [several for several in names.values() if len(several) > 1]


def unflattened(model: nn.Module, path: str, values: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return ``values``, with a flat vector split in the order of the model's parameters.

    Raises ModelError if the vector's size is not the number of parameters.
    """
    if set(values) != {FLAT}:
        return values
    flat = np.ravel(values[FLAT])
    state = neutral_weights(model)
    wanted = [neutral_name(name) for name, _ in model.named_parameters()]
    count = sum(state[name].numel() for name in wanted)
    if count != flat.size:
        raise ModelError(f"{path}: has {count} parameters, the vector of weights holds {flat.size} numbers")
    cut = np.split(flat, np.cumsum([state[name].numel() for name in wanted])[:-1])
    found = {name: part.reshape(tuple(state[name].shape)) for name, part in zip(wanted, cut)}
    # batch normalization's running statistics are not parameters and stay unchanged
    return {name: found.get(name, state[name].cpu().numpy()) for name in state}
