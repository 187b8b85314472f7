"""Solvers: which options are valid, and the defaults of the recipe ``equal``. The formulas are in docs/solvers.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from multiseg.errors import setting
from multiseg.schema import is_number


@dataclass(frozen=True)
class Neutral:
    """A solver of the recipe ``equal``: its base rate and options, the same for every backend."""

    rate: float
    options: Mapping[str, float]


# Rates: the best powers of ten for each solver in experiments with the tutorial's network and images (docs/solvers.md).
# Options: the values of the papers and of Caffe, or those of PyTorch where these two differ.
NEUTRAL: dict[str, Neutral] = {
    "sgd": Neutral(1e-5, {"momentum": 0.9}),
    "nesterov": Neutral(1e-5, {"momentum": 0.9}),
    "adagrad": Neutral(1e-2, {"delta": 1e-8}),
    "rmsprop": Neutral(1e-3, {"rms_decay": 0.99, "delta": 1e-8}),
    "adadelta": Neutral(0.1, {"momentum": 0.9, "delta": 1e-6}),
    "adam": Neutral(1e-3, {"momentum": 0.9, "momentum2": 0.999, "delta": 1e-8}),
}
NEUTRAL_BATCH_SIZE = 16  # DIGITS' own default

# option -> requirement in words, and its check
_BELOW_1 = ("from 0 to below 1", lambda value: 0 <= value < 1)
_ABOVE_0 = ("above 0", lambda value: value > 0)
_FROM_0 = ("a number from 0", lambda value: value >= 0)
_VALID: dict[str, tuple[str, Callable[[float], bool]]] = {
    "momentum": _BELOW_1,
    "momentum2": _BELOW_1,
    "rms_decay": _BELOW_1,
    "dampening": ("from 0 to 1", lambda value: 0 <= value <= 1),
    "delta": _ABOVE_0,  # without it the divisor may be 0
    "initial_accumulator": _ABOVE_0,
}


def option_problems(solver: str, options: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the values of a solver's options, as messages."""
    problems = []
    for key, value in options.items():
        requirement, is_valid = _VALID.get(key, _FROM_0)
        if solver == "nesterov" and key == "momentum":
            requirement, is_valid = "above 0 and below 1", lambda number: 0 < number < 1
        if not (is_number(value) and is_valid(value)):
            problems.append(f"{key}={value!r}: must be {requirement}")
    return problems


def multiplier_problems(multipliers: Any) -> list[str]:
    """Return what is wrong with a job's ``multipliers``, in the words of an error's template."""
    if not isinstance(multipliers, Mapping):
        return [f"{setting('multipliers', multipliers)}: must map names of parameters to {{'lr': a, 'decay': b}}"]
    problems = []
    for pattern, factors in multipliers.items():
        if not isinstance(factors, Mapping) or not factors or not set(factors) <= {"lr", "decay"}:
            place = setting("multipliers", factors, keys=(pattern,))
            problems.append(f"{place}: must be {{'lr': a, 'decay': b}}, or one of the two")
            continue
        for key, value in factors.items():
            if not (is_number(value) and value >= 0):
                problems.append(f"{setting('multipliers', value, keys=(pattern, key))}: must be a number from 0")
    return problems
