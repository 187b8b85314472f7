"""Torch7's initial values, and the replay of a network file's operations on its parameters."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multiseg_torch.torch7 import layers
from multiseg_torch.torch7.objects import Object, Problem

LARGEST = 1 << 28  # maximum number of elements of all tensors that a file creates
WORK = 1 << 33  # maximum number of elements that a file may write in total: half a minute


def reset(module: nn.Module, deviation: float | None = None) -> None:
    """Initialize a module as Torch7's ``reset`` does: uniform within 1/sqrt(fan in), or with a standard deviation ``deviation``.

    Sources, in https://github.com/torch/nn: SpatialConvolution.lua and its variants, Linear.lua (fan in: input planes x kernel,
    for SpatialFullConvolution too), BatchNormalization.lua (weights uniform within 0 and 1), PReLU.lua (1/4), CMul.lua,
    CAdd.lua and Mul.lua (fan in: all weights).
    """
    with torch.no_grad():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            if isinstance(module, nn.ConvTranspose2d):
                fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            else:
                fan_in = module.weight[0].numel()
            bound = fan_in**-0.5 if deviation is None else deviation * 3**0.5
            for parameter in module.parameters():
                parameter.uniform_(-bound, bound)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.reset_running_stats()
            if module.affine:
                module.weight.uniform_(0, 1)
                module.bias.zero_()
        elif isinstance(module, nn.PReLU):
            module.weight.fill_(0.25)
        elif isinstance(module, layers.Weighted):
            for parameter in module.parameters():
                bound = parameter.numel() ** -0.5 if deviation is None else deviation * 3**0.5
                parameter.uniform_(-bound, bound)


@torch.no_grad()
def replay(log: Sequence[Sequence[Any]], modules: Mapping[int, nn.Module], wanted: Container[int]) -> dict[int, Tensor]:
    """Replay a Lua file's operations on tensors in order, and return the tensors whose ids are in ``wanted``; see nn.lua.

    Parameters that the file removed (a bias, by noBias) are left out. Raises Problem if an operation is invalid or the work
    exceeds the limits.
    """
    tensors: dict[int, list[Tensor]] = {}  # several for a network's flattened parameters
    elements = work = 0

    def hold(count: int) -> None:
        nonlocal elements
        elements += count
        if elements > LARGEST:
            raise Problem(f"its tensors have more than {LARGEST} elements")

    def new(size: Sequence[int]) -> Tensor:
        hold(torch.Size(size).numel())
        return torch.zeros(size)

    def joined(parts: list[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        hold(_numel(parts))
        return torch.cat([each.flatten() for each in parts])

    for operation, target, *arguments in log:
        work += _numel(modules[target].parameters() if target in modules else tensors.get(target, ()))
        if work > WORK:
            raise Problem(f"writes more than {WORK} elements to its tensors; shorten its loops")
        if operation == "reset":
            if target in modules:
                reset(modules[target], *arguments)
        elif operation == "parameter":
            number, name = arguments
            value = getattr(modules.get(number), name, None)
            tensors[target] = [] if value is None else [value.detach()]
        elif operation == "flat":
            tensors[target] = [each for member in arguments[0] for each in tensors[member]]
        elif operation == "new":
            tensors[target] = [new(arguments[0])]
        elif operation == "values":
            tensors[target] = [torch.tensor(arguments[1], dtype=torch.float32).reshape(arguments[0])]
        elif operation == "clone":
            tensors[target] = [new(each.shape).copy_(each) for each in tensors[arguments[0]]]
        elif operation == "select":
            tensors[target] = [each[arguments[1] - 1] for each in tensors[arguments[0]]]
        elif operation == "view":
            tensors[target] = [each.view(arguments[1]) for each in tensors[arguments[0]]]
        elif operation == "copy":
            _copy(tensors[target], tensors[arguments[0]])
        else:
            for each in tensors[target]:
                _in_place(each, operation, arguments)
    return {number: joined(made) for number, made in tensors.items() if made and number in wanted}


def _numel(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() for each in tensors)


@torch.no_grad()
def put(made: Object, module: nn.Module, part: str, values: Tensor) -> None:
    """Copy the tensor that a file assigned to a parameter into the module. Raise Problem if the sizes differ."""
    own = getattr(module, part)
    if own.data_ptr() == values.data_ptr():
        return
    if own.numel() != values.numel():
        raise Problem(f"{made.place}: its {part} is {tuple(own.shape)}, the file assigns {tuple(values.shape)}")
    own.copy_(values.reshape(own.shape))


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if not sources or not targets:
        return
    flat = torch.cat([each.flatten() for each in sources])
    for target, values in zip(targets, flat.split([each.numel() for each in targets])):
        target.copy_(values.reshape(target.shape))


def _in_place(tensor: Tensor, operation: str, arguments: Sequence[Any]) -> None:
    if operation == "set":
        last = dict(zip(arguments[::2], arguments[1::2]))  # the last value of an index counts
        tensor[torch.tensor(list(last)) - 1] = torch.tensor(list(last.values()), dtype=torch.float32)
        return
    if operation == "normal" and arguments[1] < 0:
        raise Problem(f"tensor:normal: its standard deviation is {arguments[1]}; it must not be negative")
    if operation == "uniform" and arguments[1] < arguments[0]:
        raise Problem(f"tensor:uniform: {arguments[0]} is above {arguments[1]}")
    getattr(tensor, f"{operation}_")(*arguments)
