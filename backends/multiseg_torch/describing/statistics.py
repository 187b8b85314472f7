"""Find which statistics each batch normalisation of a model uses, by running the model and recording its calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

ORDERS = {  # arguments in order, of the function for users and of the one that it calls
    True: "input running_mean running_var weight bias training momentum eps",
    False: "input weight bias running_mean running_var training momentum eps cudnn_enabled",
}


def mark_training(
    model: nn.Module, images: Tensor, layers: Sequence[dict[str, Any]], more: Sequence[Tensor] = ()
) -> None:
    """Mark the BatchNormalization layers that use stored statistics in training too; ``layers`` are those of the evaluation.

    ``more`` are the tensors of further inputs.

    The model, which is in evaluation mode, runs once in training mode; its buffers and the random numbers stay as they were. A
    model that fails in training mode is taken to use the statistics of the batch there.
    """
    norms = [layer for layer in layers if layer["type"] == "BatchNormalization"]
    if not norms:
        return
    recorder = _Recorder(model)
    tensors = [*model.parameters(), *model.buffers()]
    values = [tensor.detach().clone() for tensor in tensors]
    with torch.no_grad():
        try:
            model.train()
            with torch.random.fork_rng(), recorder:
                model(images.clone(), *(tensor.clone() for tensor in more))
        except Exception:  # of any class: the model's own code
            pass
        finally:
            model.eval()
            for tensor, value in zip(tensors, values):
                tensor.copy_(value)
    unnamed = iter(recorder.by_batch.pop("", []))
    for layer in norms:
        uses = recorder.by_batch.get(layer["name"])
        if not (any(uses) if uses else next(unnamed, True)):
            layer["parameters"]["training_statistics"] = "stored"


class _Recorder(TorchFunctionMode):
    """Records for each batch normalisation, by the name of its module, whether it uses the statistics of the batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.owners = {id(value): _owner(name) for name, value in [*model.named_parameters(), *model.named_buffers()]}
        self.by_batch: dict[str, list[bool]] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") == "batch_norm":
            arguments = bound(function, args, kwargs or {})
            parts = (arguments.get(name) for name in ("weight", "bias", "running_mean", "running_var"))
            owner = next((self.owners[id(part)] for part in parts if id(part) in self.owners), "")
            self.by_batch.setdefault(owner, []).append(uses_batch(arguments))
        return function(*args, **(kwargs or {}))


def bound(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call of F.batch_norm or torch.batch_norm by name."""
    return {**dict(zip(ORDERS[function is functional.batch_norm].split(), args)), **kwargs}


def uses_batch(arguments: Mapping[str, Any]) -> bool:
    """Return whether a batch normalisation uses the statistics of the batch."""
    return bool(arguments.get("training")) or arguments.get("running_mean") is None


def _owner(name: str) -> str:
    return name.rpartition(".")[0] or "model"
