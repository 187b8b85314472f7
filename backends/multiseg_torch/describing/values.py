"""Describe arguments of calls and attributes of modules as plain values, by which layers beyond the vocabulary are compared."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Optional

import torch
from torch import Tensor, nn

FEW = 64  # constants with at most this many elements are described by their values, larger ones by a digest
Named = Callable[[Tensor], Optional[str]]  # noqa: UP045 - worker code runs on Python 3.9
SKIPPED = ("inplace", "training", "out", "generator", "device", "memory_format", "non_blocking", "return_indices")


def of_module(module: nn.Module) -> dict[str, Any]:
    """Return the settings of a module: its public attributes with plain values."""
    own = {name: value for name, value in vars(module).items() if not name.startswith("_") and name not in SKIPPED}
    described = {name: plain(value) for name, value in own.items()}
    return {name: value for name, value in described.items() if value is not None}


def of_call(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], named: Named) -> dict[str, Any]:
    """Return the arguments of a call by name, without those that are inputs and weights, which ``named`` returns as names.

    Arguments that are not specified have their default if it is known.
    """
    values = {**_defaults(function, len(args)), **dict(zip(_names(function, len(args)), args)), **kwargs}
    described = {
        name: plain(value, named)
        for name, value in values.items()
        if name not in SKIPPED and not _is_described(value, named)
    }
    return {name: value for name, value in described.items() if value is not None}


def _is_described(value: Any, named: Named) -> bool:
    """Return whether a value is a tensor that is an input or a weight of the layer, not computed from weights."""
    return isinstance(value, Tensor) and "(" not in (named(value) or "(")


def plain(value: Any, named: Named = lambda tensor: None) -> Any:
    """Return a value as numbers, text and lists; None for what cannot be described, such as a function."""
    if isinstance(value, Tensor):
        return named(value) or constant(value)
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, slice):
        return ":".join("" if part is None else str(part) for part in (value.start, value.stop, value.step))
    if value is Ellipsis:
        return "..."
    if isinstance(value, (torch.dtype, torch.layout)):
        return str(value).rpartition(".")[2]
    if isinstance(value, (list, tuple)):
        return ["none" if part is None else part for part in (plain(each, named) for each in value)]
    return None


def constant(value: Tensor) -> Any:
    """Return the values of a small tensor as nested lists, the digest of a larger one."""
    value = value.detach().cpu()
    if value.numel() <= FEW:
        return value.double().tolist() if value.is_floating_point() else value.tolist()
    digest = hashlib.blake2b(value.contiguous().numpy().tobytes(), digest_size=8).hexdigest()
    return f"{'x'.join(map(str, value.shape))} values {digest}"


def uniform(value: Tensor) -> float | None:
    """Return the one finite value of all elements of a tensor, None if they differ."""
    if value.is_complex() or not value.numel():
        return None
    first = value.detach().flatten()[0]
    number = float(first)
    return number if bool((value.detach() == first).all()) and abs(number) < float("inf") else None


def _names(function: Any, count: int) -> list[str]:
    names = list(_arguments(function, count))[:count]
    return names + [f"argument {place}" for place in range(len(names), count)]


def _defaults(function: Any, count: int) -> dict[str, Any]:
    return {name: default for name, default in _arguments(function, count).items() if default is not None}


def _arguments(function: Any, count: int) -> dict[str, Any]:
    """Return names and defaults of a function's arguments; empty if they are unknown."""
    try:
        parameters = inspect.signature(function).parameters.values()
        if all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters):
            return {p.name: None if p.default is p.empty else p.default for p in parameters}
    except (TypeError, ValueError):
        pass  # a function in C++, whose operator has a schema
    packet = getattr(torch.ops.aten, str(getattr(function, "__name__", "")), None)
    overloads = getattr(packet, "overloads", None)
    for overload in overloads() if overloads is not None else ():
        arguments = getattr(packet, overload)._schema.arguments
        if count <= len(arguments) and "out" not in overload:
            return {argument.name: argument.default_value for argument in arguments}
    return {}
