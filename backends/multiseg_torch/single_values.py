"""Find the layers that cannot be trained with a batch of one image: batch normalization over one value per channel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[str]]:
    """Record the forward pass of one image within the block; yield the names of these layers, complete at its end.

    A layer that stays in evaluation mode during training is not one of them.
    """
    names: list[str] = []
    seen: list[str] = []
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
    }

    def hook(name: str) -> Any:
        def note(module: nn.Module, inputs: Any) -> None:
            if inputs and inputs[0].ndim > 1 and inputs[0].numel() == inputs[0].shape[1]:
                seen.append(name)

        return note

    hooks = [module.register_forward_pre_hook(hook(name)) for name, module in layers.items()]
    try:
        yield names
    finally:
        for handle in hooks:
            handle.remove()
    was_training = model.training
    model.train()
    names += [name for name in dict.fromkeys(seen) if layers[name].training]
    model.train(was_training)
