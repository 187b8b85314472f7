"""Learning-rate policies: Caffe's, with the parameters in percent of all iterations as DIGITS asks for them, and a warm-up.

Formulas: caffe/src/caffe/solvers/sgd_solver.cpp, ``GetLearningRate``. Defaults: DIGITS' model form. Conversion from percent:
digits/model/tasks/caffe_train.py; steps are rounded up, and the gamma of exp, inv and sigmoid is one for each percent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from multiseg.errors import SettingsError, setting

# policy -> its parameters and DIGITS' defaults
POLICIES: dict[str, dict[str, Any]] = {
    "fixed": {},
    "step": {"step": 33.0, "gamma": 0.1},
    "multistep": {"stepvalues": (50.0, 85.0), "gamma": 0.5},
    "exp": {"gamma": 0.95},
    "inv": {"gamma": 0.1, "power": 0.5},
    "poly": {"power": 3.0},
    "sigmoid": {"step": 50.0, "gamma": 0.1},
    "linear": {},  # poly of power 1: down to 0 over all iterations
}
WARMUP = "warmup"  # of every policy: percent of all iterations in which the rate rises linearly from near 0
DEFAULT = "step"


@dataclass(frozen=True)
class Schedule:
    """A policy with all its parameters. ``rate(iteration)`` needs only the base rate and the number of iterations."""

    policy: str
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, policy: str | Mapping[str, Any] | None) -> Schedule:
        """Return the schedule of a policy's name, or of a mapping with ``policy`` and its parameters; None is DIGITS' default.

        Raises SettingsError naming an unknown policy, or all parameters that are unknown, missing or invalid.
        """
        if policy is None:
            policy = DEFAULT
        requested = {"policy": policy} if isinstance(policy, str) else dict(policy)
        name = requested.pop("policy", None)
        if not isinstance(name, str) or name not in POLICIES:
            raise SettingsError(f"unknown {setting('lr_policy')} {name!r}; known are: {', '.join(POLICIES)}")
        known = {**POLICIES[name], WARMUP: 0.0}
        unknown = sorted(set(requested) - set(known), key=str)
        problems = [
            f"{setting('lr_policy')} {name!r} has no parameter {key!r}; it takes: {', '.join(known)}" for key in unknown
        ]
        parameters: dict[str, Any] = {}
        for key, default in known.items():
            value = requested.get(key, default)
            several = isinstance(default, tuple)
            if value is None or value == "":
                problems.append(f"{setting('lr_policy')} {name!r}: {key} is missing; DIGITS' default is {default!r}")
                continue
            try:
                if isinstance(value, str) and several:
                    raise ValueError  # its characters are no list
                parameters[key] = [float(part) for part in value] if several else float(value)
            except (TypeError, ValueError, OverflowError):  # the last for a whole number of more than 308 digits
                wanted = "a list of numbers" if several else "a number"
                problems.append(f"{setting('lr_policy')} {name!r}: {key} must be {wanted}, not {value!r}")
                continue
            if wrong := _wrong(key, parameters[key]):
                problems.append(f"{setting('lr_policy')} {name!r}: {key}={value!r}: {wrong}")
        if problems:
            raise SettingsError("; ".join(problems))
        return cls(name, parameters)

    def rate(self, base: float, iteration: int, iterations: int) -> float:
        """Return the learning rate of ``iteration`` (from 0) of ``iterations``, with the base rate ``base``."""
        rate = base * _FACTOR[self.policy](self.parameters, iteration, iterations)
        warming = math.ceil(iterations * self.parameters[WARMUP] / 100)
        return rate * (iteration + 1) / warming if iteration < warming else rate

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as a plain dict that :meth:`of` accepts."""
        return {"policy": self.policy, **self.parameters}


def _wrong(key: str, value: float | list[float]) -> str | None:
    """Return what is wrong with the value of a parameter, None if it is valid."""
    values = value if isinstance(value, list) else [value]
    if not values or not all(map(math.isfinite, values)):
        return "must be finite"
    if key in ("step", "stepvalues") and not all(0 < percent <= 100 for percent in values):
        return "must be percent of all iterations, above 0, up to 100"
    if sorted(set(values)) != values:
        return "must rise"
    if key == WARMUP and not 0 <= values[0] <= 100:
        return "must be percent of all iterations, 0 to 100"
    return "must be above 0" if key in ("gamma", "power") and min(values) <= 0 else None


def _at(percent: float, iterations: int) -> int:
    """Return the iteration at this percentage, rounded up in DIGITS' order of operations, at least 1."""
    return max(1, math.ceil(percent * (iterations / 100)))


def _sigmoid(p: Mapping[str, Any], i: int, n: int) -> float:
    # Caffe's rises with iterations for a positive gamma; DIGITS passes it negated, so that the rate falls
    return 1 / (1 + math.exp(min(700.0, p["gamma"] * 100 / n * (i - _at(p["step"], n)))))


_FACTOR: dict[str, Callable[[Mapping[str, Any], int, int], float]] = {
    "fixed": lambda p, i, n: 1.0,
    "step": lambda p, i, n: p["gamma"] ** (i // _at(p["step"], n)),
    "multistep": lambda p, i, n: p["gamma"] ** sum(i >= _at(value, n) for value in p["stepvalues"]),
    "exp": lambda p, i, n: p["gamma"] ** (100 * i / n),
    "inv": lambda p, i, n: (1 + p["gamma"] * 100 * i / n) ** -p["power"],
    "poly": lambda p, i, n: (1 - i / n) ** p["power"],
    "sigmoid": _sigmoid,
    "linear": lambda p, i, n: 1 - i / n,
}
