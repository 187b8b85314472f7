"""Per-parameter state of PyTorch's optimizers under neutral names (docs/solvers.md).

PyTorch creates an optimizer's state at the first step; before it, the initial state (zeros) is returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

from multiseg.network import STEPS, Array

_MOMENTS = {"exp_avg": "mean", "exp_avg_sq": "square"}
SLOTS: dict[type[optim.Optimizer], dict[str, str]] = {  # PyTorch's names -> neutral ones
    optim.SGD: {"momentum_buffer": "momentum"},
    optim.Adagrad: {"sum": "square_sum"},
    optim.RMSprop: {"square_avg": "square", "momentum_buffer": "momentum"},
    optim.Adadelta: {"square_avg": "square", "acc_delta": "delta"},
    optim.Adam: _MOMENTS,
    optim.AdamW: _MOMENTS,
    optim.NAdam: {**_MOMENTS, "mu_product": "momentum_product"},
    optim.RAdam: _MOMENTS,
}
COUNTING = (optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam)  # whose update rule depends on the step count
STEP = "step"  # PyTorch's key of the step count, stored for each parameter

Parameters = Mapping[str, nn.Parameter]


def state(optimizer: optim.Optimizer, parameters: Parameters) -> dict[str, Array]:
    """Return the optimizer's state by ``slot/parameter``, and ``steps`` if its update rule depends on the step count."""
    found: dict[str, Any] = {}
    for own, slot in _slots(optimizer).items():
        for name, parameter in parameters.items():
            value = optimizer.state.get(parameter, {}).get(own)
            found[f"{slot}/{name}"] = (_start(own, parameter) if value is None else value).cpu().numpy().copy()
    if isinstance(optimizer, COUNTING):
        steps = (int(kept[STEP]) for kept in map(optimizer.state.get, parameters.values()) if kept)
        found[STEPS] = np.array(next(steps, 0))
    return found


def set_state(optimizer: optim.Optimizer, parameters: Parameters, state: Mapping[str, Array]) -> None:
    """Restore the state that :func:`state` returns."""
    kept = optimizer.state_dict()
    members = [id(each) for group in optimizer.param_groups for each in group["params"]]  # indices as in the state_dict
    for own, slot in _slots(optimizer).items():
        values = {name: state[f"{slot}/{name}"] for name in parameters}
        # SGD does not dampen its first step, which it recognises by the missing buffer
        fresh = isinstance(optimizer, optim.SGD) and not any(value.any() for value in values.values())
        for name, parameter in parameters.items():
            own_state = kept["state"].setdefault(members.index(id(parameter)), {})
            own_state[own] = None if fresh else torch.from_numpy(np.array(values[name]))
            if not isinstance(optimizer, optim.SGD):
                own_state[STEP] = torch.tensor(float(state.get(STEPS, np.array(0))))
    load(optimizer, kept)


def load(optimizer: optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore an optimizer's ``state_dict``, with each tensor in the memory order of its parameter, which may be another one.

    PyTorch's fused updates (2.13) pair the elements of a parameter and its state by their place in memory.
    """
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()


def _slots(optimizer: optim.Optimizer) -> dict[str, str]:
    """Return PyTorch's slots and their neutral names; PyTorch stores no buffer for a momentum of 0."""
    keeps = optimizer.defaults.get("momentum") != 0
    return {own: slot for own, slot in SLOTS[type(optimizer)].items() if keeps or own != "momentum_buffer"}


def _start(own: str, parameter: nn.Parameter) -> Tensor:
    return torch.ones(()) if own == "mu_product" else torch.zeros_like(parameter)
