"""The classes and functions of a Python file that make a network, and the words that choose them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from multiseg.errors import ModelError
from multiseg.worker.choice import Choice, as_words

SHOWN = 12  # candidates that a message lists


def make(chosen: Choice, module: ModuleType, params: dict[str, Any]) -> Any:
    """Return what the chosen class or function makes, or the chosen object itself.

    Without arguments a function receives DIGITS' ``params`` if it takes them. Raises ModelError for an unknown name, and for
    arguments that do not fit.
    """
    path = str(chosen.file)
    target: Any = module
    for part in str(chosen.name).split("."):
        if not hasattr(target, part):
            known = listed(path, of_module(module))
            raise ModelError(f"{path}: defines no {chosen.name}{f'; specify one of: {known}' if known else ''}")
        target = getattr(target, part)
    if chosen.arguments is None and (isinstance(target, (nn.Module, dict)) or not callable(target)):
        return target
    if chosen.arguments is None and takes_params(target):
        return target(params)
    positional, named = chosen.call_arguments()
    try:
        inspect.signature(target).bind(*positional, **named)
    except ValueError:  # no signature, of a class in C
        pass
    except TypeError as error:
        raise ModelError(f"{path}: {chosen.name}: {error}; its arguments are: {listed(path, [target])}") from None
    return target(*positional, **named)


def takes_params(make: Callable[..., Any]) -> bool:
    """Return whether a factory takes DIGITS' params: an argument of that name or, for a function, its one required argument."""
    parameters = inspect.signature(make).parameters
    return "params" in parameters or (len(required(make)) == 1 and not inspect.isclass(make))


def required(make: Callable[..., Any]) -> list[str]:
    """Return the names of the arguments that a class or function needs."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except ValueError:
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def defined_in(module: ModuleType) -> dict[str, Any]:
    """Return what a file defines itself, by name: not what it imports."""
    return {
        name: value for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
    }


def of_module(module: ModuleType) -> list[Callable[..., Any]]:
    """Return the classes of networks that a file defines."""
    own = defined_in(module).values()
    return [value for value in own if inspect.isclass(value) and issubclass(value, nn.Module)]


def listed(path: str, makers: Iterable[Callable[..., Any]]) -> str:
    """Return the words that choose each of ``makers``, those without required arguments first."""
    ordered = sorted(makers, key=lambda maker: bool(required(maker)))
    words = [f"{maker.__name__}({', '.join(f'{name}=...' for name in required(maker))})" for maker in ordered]
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return as_words(Path(path), words[:SHOWN]) + more
