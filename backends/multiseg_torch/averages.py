"""Describe how batch normalisation updates the averages that it keeps (multiseg.network.Network.describe)."""

from __future__ import annotations

from typing import Any

from torch import nn

_Norm = nn.modules.batchnorm._BatchNorm


def rules(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return the rule of each average by its neutral name, of the modules of torch.nn that normalise by batch statistics.

    PyTorch keeps the unbiased variance (torch.nn.BatchNorm2d).
    """
    was_training = model.training
    model.train()
    found: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, _Norm) or type(module).forward is not _Norm.forward:
            continue
        if module.training and module.track_running_stats and module.running_mean is not None:
            rule = {"rule": "cumulative"} if module.momentum is None else _moving(module.momentum)
            for part in ("running_mean", "running_var"):
                found[f"{name or 'model'}.{part}"] = {**rule, "unbiased": True}
    model.train(was_training)
    return found


def _moving(momentum: float) -> dict[str, Any]:
    return {"rule": "moving", "momentum": momentum}
