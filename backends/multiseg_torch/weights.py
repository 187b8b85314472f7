"""Neutral weights of a PyTorch model: names, and a flat vector cut into parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from multiseg.errors import ModelError
from multiseg.network import Array

FLAT = "parameters"  # the one name of a vector that holds all parameters in the network's order


def named(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Neutral weights of a state_dict, sharing its memory: ``layer.part``, where the network itself is layer ``model``.

    What is no floating-point number is no weight, such as BatchNorm's count of batches.
    """
    return {neutral_name(name): value.detach() for name, value in state.items() if value.is_floating_point()}


def neutral_name(name: str) -> str:
    """Of a parameter or buffer, from PyTorch's."""
    return name if "." in name else f"model.{name}"


def neutral_weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's neutral weights, sharing its memory."""
    return named(model.state_dict())


def unflattened(model: nn.Module, path: str, values: Mapping[str, Array]) -> Mapping[str, Array]:
    """``values``, where they are one vector cut up in the order of the model's parameters. Raises ModelError."""
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
    # statistics of batch normalisation are no parameters: they stay
    return {name: found.get(name, state[name].cpu().numpy()) for name in state}
