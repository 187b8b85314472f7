"""Solvers of torch.optim with Caffe's option names, rate and decay multipliers, and the recipe `equal`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn, optim

from multiseg.errors import ModelError
from multiseg.network import Array, NetworkSpec, factors, is_frozen
from multiseg_torch import solver_state
from multiseg_torch.weights import neutral_name, neutral_weights, shared

Settings = Mapping[str, Any]
Groups = list[dict[str, Any]]


# PyTorch wraps its optimizers' methods to exclude them from torch.compile; the first call then imports torch._dynamo, 800
# modules, which takes a second or two (torch/_compile.py, torch/optim/optimizer.py). Nothing is compiled here, so the unwrapped
# methods suffice. If PyTorch renames the attribute, only the import time returns.
for _name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
    _method = getattr(getattr(optim.Optimizer, _name), "__wrapped__", None)
    if _method is not None:
        _method.__dynamo_disable = _method


class Solver:
    """An optimizer over parameter groups, one group for each pair of rate and decay multipliers."""

    def __init__(self, spec: NetworkSpec, model: nn.Module) -> None:
        assert spec.solver is not None
        self._settings = spec.solver
        # the recipe's Adam adds delta to the root of the uncorrected second moment, PyTorch's to that of the bias-corrected one
        self._corrects_delta = spec.recipe == "equal" and spec.solver["name"] == "adam"
        trained = factors(spec, dict.fromkeys(neutral_weights(model), (1.0, 1.0)), shared(model))
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        self._parameters: dict[str, nn.Parameter] = {}  # parameters that the solver updates, by neutral name
        self.trained: dict[str, float] = {}  # learning rate multipliers of these parameters
        for name, parameter in model.named_parameters():
            factor = trained.get(neutral_name(name))
            if factor is None:
                parameter.requires_grad_(False)
            elif parameter.requires_grad:
                groups.setdefault(factor, []).append(parameter)
                if factor[0]:
                    self._parameters[neutral_name(name)] = parameter
                    self.trained[neutral_name(name)] = factor[0]
        if not groups:
            raise ModelError(
                f"{spec.model}: has nothing to train: every parameter is frozen or does not require a gradient"
            )
        # running statistics of frozen layers, e.g. batch normalization's averages
        self._kept = [
            buffer
            for name, buffer in model.named_buffers(remove_duplicate=False)
            if is_frozen(neutral_name(name), spec.frozen)
        ]
        self._rates = [lr for lr, _ in groups]
        self._optimizer = OPTIMIZERS[spec.solver["name"]](
            spec.solver,
            [
                {"params": members, "weight_decay": decay * spec.solver["weight_decay"]}
                for (_, decay), members in groups.items()
            ],
        )

    @contextmanager
    def gradients(self) -> Iterator[None]:
        """Reset the gradients on entry; restore the frozen layers' buffers on exit."""
        kept = [buffer.clone() for buffer in self._kept]
        self._optimizer.zero_grad(set_to_none=True)
        yield
        for buffer, value in zip(self._kept, kept):
            buffer.copy_(value)

    def step(self, rate: float) -> None:
        """Update the parameters once from their gradients, at learning rate ``rate``."""
        for group, factor in zip(self._optimizer.param_groups, self._rates):
            group["lr"] = rate * factor
            if self._corrects_delta:
                group["eps"] = self._settings["delta"] / math.sqrt(
                    1 - self._settings["momentum2"] ** (self._steps() + 1)
                )
        with torch.no_grad():
            inspect.unwrap(type(self._optimizer).step)(self._optimizer)

    def _steps(self) -> int:
        """Return the number of updates so far."""
        return next((int(state["step"]) for state in self._optimizer.state.values()), 0)

    def state(self) -> dict[str, Array]:
        """Return the optimizer's state by neutral names."""
        return solver_state.state(self._optimizer, self._parameters)

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Restore the state that :meth:`state` returns."""
        solver_state.set_state(self._optimizer, self._parameters, state)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's ``state_dict``."""
        state: dict[str, Any] = self._optimizer.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returns."""
        solver_state.load(self._optimizer, state)


def _sgd(s: Settings, groups: Groups) -> optim.Optimizer:
    nesterov = s["name"] == "nesterov"
    return optim.SGD(
        groups, momentum=s["momentum"], dampening=s.get("dampening", 0.0), nesterov=nesterov, lr=1.0, fused=True
    )


def _on_cpu(groups: Groups) -> bool:
    """Return whether all parameters are on the CPU, the only device with a fused AdaGrad."""
    return all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])


def _betas(s: Settings) -> tuple[float, float]:
    return s["momentum"], s["momentum2"]


# fused: one pass over parameters, gradients and state, where PyTorch implements it. The core sets the rate at every step.
OPTIMIZERS: dict[str, Callable[[Settings, Groups], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "nesterov": _sgd,
    "adagrad": lambda s, groups: optim.Adagrad(groups, eps=s["delta"], fused=_on_cpu(groups)),
    "rmsprop": lambda s, groups: optim.RMSprop(
        groups, alpha=s["rms_decay"], eps=s["delta"], momentum=s.get("momentum", 0.0)
    ),
    "adadelta": lambda s, groups: optim.Adadelta(groups, rho=s["momentum"], eps=s["delta"]),
    "adam": lambda s, groups: optim.Adam(groups, betas=_betas(s), eps=s["delta"], fused=True),
    "adamw": lambda s, groups: optim.AdamW(groups, betas=_betas(s), eps=s["delta"], fused=True),
    "nadam": lambda s, groups: optim.NAdam(groups, betas=_betas(s), eps=s["delta"], momentum_decay=s["momentum_decay"]),
    "radam": lambda s, groups: optim.RAdam(groups, betas=_betas(s), eps=s["delta"]),
}
