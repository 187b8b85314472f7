"""The state of a solver (momentum and other slots), and its transfer to another training. Slots and rules: docs/solvers.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.errors import ModelError, SettingsError, setting
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.network import STEPS
from multiseg.schema import is_number

Array = npt.NDArray[np.float32]

MOTION = ("momentum", "displacement")  # slots that move weights by themselves; all others are statistics of gradients
ALONE = f"{setting('solver_state', False)} starts from the weights alone"


@dataclass(frozen=True)
class SolverState:
    """The state of a solver, ``slots`` by ``slot/parameter``, and the settings that its meaning depends on.

    ``solver``, ``recipe`` and ``backend`` are names, ``loss`` identifies the loss; ``rate`` is the learning rate of the last step
    or of the first step if none was done, None if it is unknown. ``trained`` maps the parameters that the solver updates to their
    learning-rate factors; ``steps`` is the number of updates so far, None if the solver does not count them.
    """

    solver: str
    recipe: str
    backend: str
    loss: str
    rate: float | None
    trained: Mapping[str, float]
    steps: int | None
    slots: Mapping[str, Array]

    @property
    def kinds(self) -> list[str]:
        """The names of the slots."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.slots))

    def to_json(self) -> dict[str, Any]:
        """Return everything except the arrays, as plain values."""
        return {key: value for key, value in vars(self).items() if key != "slots"} | {"trained": dict(self.trained)}

    @classmethod
    def of(cls, content: NeutralWeights, title: str) -> SolverState | None:
        """Return the solver state stored with neutral weights, None if there is none. Raises ModelError if it is invalid."""
        if content.solver is None:
            return None
        missing = [key for key in cls.__dataclass_fields__ if key not in content.solver and key != "slots"]
        if missing:
            raise ModelError(f"{title}: its solver description lacks {missing[0]!r}; {ALONE}")
        values = {key: content.solver[key] for key in cls.__dataclass_fields__ if key != "slots"}
        invalid = next((key for key, value in values.items() if not _VALID[key](value)), None)
        if invalid is not None:
            raise ModelError(f"{title}: its solver description has an invalid {invalid}={values[invalid]!r}; {ALONE}")
        state = cls(**values, slots=content.state)
        required = (f"{slot}/{name}" for slot in state.kinds for name in state.trained)
        absent = next((name for name in required if name not in state.slots), None)
        if absent is not None:
            raise ModelError(f"{title}: its solver state lacks {absent!r}; {ALONE}")
        return state


_VALID: dict[str, Callable[[Any], bool]] = {  # whether a value read from a file is valid, by key
    **dict.fromkeys(("solver", "recipe", "backend", "loss"), lambda value: isinstance(value, str)),
    "rate": lambda value: value is None or is_number(value),
    "steps": lambda value: value is None or isinstance(value, int),
    "trained": lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
}


@dataclass(frozen=True)
class Carried:
    """The state for another solver, and ``how`` each slot was transferred: ``as it is``, ``as displacement`` or ``from zero``."""

    state: dict[str, Any]
    how: dict[str, str]


def carried(source: SolverState, target: SolverState, names: Mapping[str, str], title: str) -> Carried:
    """Return the source's state converted for a new solver, whose initial state and first learning rate are ``target``.

    ``names`` maps the target's parameters to the source's; ``title`` names the source in messages. Raises SettingsError naming
    what cannot be transferred, why, and how to fix it.
    """
    problem = _problem(source, target, names)
    if problem:
        raise SettingsError(f"{setting('weights', title)}: its solver state cannot be transferred: {problem}; {ALONE}")
    state: dict[str, Any] = {}
    how = dict.fromkeys(target.kinds, "from zero")
    for slot in source.kinds:
        own = _counterpart(slot, target)
        if own is None:
            continue
        exact = _is_exact(slot, own, source, target)
        how[own] = "as it is" if exact else "as displacement"
        for name in target.trained:
            value = source.slots[f"{slot}/{names[name]}"]
            if not exact:
                value = _rescaled(value, slot, own, _rate(source, names[name]), _rate(target, name))
            state[f"{own}/{name}"] = value
    if target.steps is not None:
        state[STEPS] = np.array(source.steps)
    return Carried({**target.slots, **state}, how)


def _problem(source: SolverState, target: SolverState, names: Mapping[str, str]) -> str | None:
    """Return why the state cannot be transferred and how to fix it; None if it can be transferred."""
    if source.solver != target.solver:
        return (
            f"it is the state of {source.solver!r}, but the solver of this job is {target.solver!r}; "
            f"choose {setting('solver', source.solver)}"
        )
    unknown = [name for name in target.trained if names.get(name) not in source.trained]
    if unknown:
        without_weights = [name for name in unknown if name not in names]  # at random values, which cannot be frozen
        name = (without_weights or unknown)[0]
        advice = "" if without_weights else "; freeze that layer"
        return f"it has no state for {name!r}, which this job trains{advice}"
    here = f"this job's {target.solver!r} in {target.backend}"
    for slot in source.kinds:
        own = _counterpart(slot, target)
        if own is None and any(source.slots[f"{slot}/{names[name]}"].any() for name in target.trained):
            option = (
                f"; add it with {setting('solver_options', {'momentum': 0.9})}, if the solver has that option"
                if slot in MOTION
                else ""
            )
            return f"{here} has no {'momentum' if slot in MOTION else slot}{option}"
        if slot not in MOTION and source.loss != target.loss:
            return (
                f"its {slot} was computed from gradients of the loss {source.loss}, but the loss of this job is {target.loss}; "
                f"train both with the same named loss, e.g. {setting('loss', 'l2')}"
            )
        if own and slot == "momentum" and source.rate is None and not _is_exact(slot, own, source, target):
            return "its last learning rate is unknown"
    missing = [slot for slot in target.kinds if slot not in MOTION and slot not in source.kinds]
    if missing or (target.steps is not None and source.steps is None):
        return f"it has no {missing[0] if missing else STEPS}, which {here} requires"
    return None


def _counterpart(slot: str, target: SolverState) -> str | None:
    """Return the target's slot that corresponds to the source's ``slot``, None if there is none."""
    equivalent = MOTION if slot in MOTION else (slot,)
    return next((kind for kind in target.kinds if kind in equivalent), None)


def _is_exact(slot: str, own: str, source: SolverState, target: SolverState) -> bool:
    """Return whether the values have the same meaning on both sides."""
    if slot != "momentum":
        return own == slot
    same_rule = source.recipe == target.recipe and (source.recipe == "equal" or source.backend == target.backend)
    return own == slot and same_rule and source.loss == target.loss


def _rate(side: SolverState, name: str) -> float:
    """Return the learning rate of a parameter; the base rate must be known."""
    return (side.rate or 0.0) * side.trained[name]


def _rescaled(value: Array, slot: str, own: str, old_rate: float, new_rate: float) -> Array:
    """Return the value that moves the parameter as far at ``new_rate`` as ``value`` did at ``old_rate``."""
    displacement = value.astype(np.float64) * (old_rate if slot == "momentum" else 1)
    return (displacement / (new_rate if own == "momentum" else 1)).astype(np.float32)
