"""What a solver keeps from step to step, as it goes over to another training. Slots and rules: docs/solvers.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.errors import ModelError, SettingsError, setting
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.network import STEPS

Array = npt.NDArray[np.float32]

MOTION = ("momentum", "displacement")  # slots that move weights on by themselves; all others are measures of gradients
ALONE = f"{setting('solver_state', False)} starts from the weights alone"


@dataclass(frozen=True)
class SolverState:
    """The state of a solver, ``slots`` by ``slot/parameter``, and what else its meaning depends on.

    ``solver``, ``recipe`` and ``backend`` are names, ``loss`` tells one loss from another. ``rate`` is the learning rate of
    the last step, or of the first where none was made; None where it is not known. ``trained`` are the parameters that the
    solver moves, with their factors of the rate; ``steps`` the updates so far, None where its rule does not count them.
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
        """Names of the slots."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.slots))

    def to_json(self) -> dict[str, Any]:
        """All but the arrays, as plain values."""
        return {key: value for key, value in vars(self).items() if key != "slots"} | {"trained": dict(self.trained)}

    @classmethod
    def of(cls, content: NeutralWeights, title: str) -> SolverState | None:
        """What neutral weights say of a solver. Raises ModelError naming what they should."""
        if content.solver is None:
            return None
        missing = [key for key in cls.__dataclass_fields__ if key not in content.solver and key != "slots"]
        if missing:
            raise ModelError(f"{title}: what it says of its solver lacks {missing[0]!r}; {ALONE}")
        said = {key: content.solver[key] for key in cls.__dataclass_fields__ if key != "slots"}
        wrong = next((key for key, value in said.items() if not _KINDS[key](value)), None)
        if wrong is not None:
            raise ModelError(f"{title}: what it says of its solver has {wrong}={said[wrong]!r}; {ALONE}")
        found = cls(**said, slots=content.state)
        wanted = (f"{slot}/{name}" for slot in found.kinds for name in found.trained)
        lost = next((name for name in wanted if name not in found.slots), None)
        if lost is not None:
            raise ModelError(f"{title}: has no {lost!r}, which its solver kept; {ALONE}")
        return found


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


_KINDS: dict[str, Callable[[Any], bool]] = {  # whether a value read from a file can be
    **dict.fromkeys(("solver", "recipe", "backend", "loss"), lambda value: isinstance(value, str)),
    "rate": lambda value: value is None or _number(value),
    "steps": lambda value: value is None or isinstance(value, int),
    "trained": lambda value: isinstance(value, dict) and all(map(_number, value.values())),
}


@dataclass(frozen=True)
class Carried:
    """A state for another solver, and ``how`` each of its slots came: ``as it is``, ``as displacement`` or ``from zero``."""

    state: dict[str, Any]
    how: dict[str, str]


def carried(source: SolverState, target: SolverState, names: Mapping[str, str], title: str) -> Carried:
    """The source's state for a solver that has not begun, whose own state and first rate ``target`` has.

    ``names`` are parameters of the source by those of the target; ``title`` names the source. Raises SettingsError naming
    what cannot go over, why, and what to do.
    """
    problem = _problem(source, target, names)
    if problem:
        raise SettingsError(f"{setting('weights', title)}: its solver's state cannot be carried on: {problem}; {ALONE}")
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
                value = _moving(value, slot, own, _rate(source, names[name]), _rate(target, name))
            state[f"{own}/{name}"] = value
    if target.steps is not None:
        state[STEPS] = np.array(source.steps)
    return Carried({**target.slots, **state}, how)


def _problem(source: SolverState, target: SolverState, names: Mapping[str, str]) -> str | None:
    """Why the state cannot go over, in words, with what to do; None where it can."""
    if source.solver != target.solver:
        return f"it is of {source.solver!r}, this job's solver is {target.solver!r}; choose {setting('solver', source.solver)}"
    unknown = [name for name in target.trained if names.get(name) not in source.trained]
    if unknown:
        return f"it has nothing of {unknown[0]!r}, which this job trains; freeze that layer"
    here = f"this job's {target.solver!r} in {target.backend}"
    for slot in source.kinds:
        own = _counterpart(slot, target)
        if own is None and any(source.slots[f"{slot}/{names[name]}"].any() for name in target.trained):
            option = (
                f"; give it one with {setting('solver_options', {'momentum': 0.9})}, where it takes that"
                if slot in MOTION
                else ""
            )
            return f"{here} keeps no {'momentum' if slot in MOTION else slot}{option}"
        if slot not in MOTION and source.loss != target.loss:
            return (
                f"its {slot} is of gradients of the loss {source.loss}, this job's loss is {target.loss}; train both with the "
                f"same named loss, e.g. {setting('loss', 'l2')}"
            )
        if own and slot == "momentum" and source.rate is None and not _is_exact(slot, own, source, target):
            return "it does not say at which learning rate it was left"
    missing = [slot for slot in target.kinds if slot not in MOTION and slot not in source.kinds]
    if missing or (target.steps is not None and source.steps is None):
        return f"it has no {missing[0] if missing else STEPS}, which {here} goes on from"
    return None


def _counterpart(slot: str, target: SolverState) -> str | None:
    """The target's slot for what is in the source's."""
    same = MOTION if slot in MOTION else (slot,)
    return next((kind for kind in target.kinds if kind in same), None)


def _is_exact(slot: str, own: str, source: SolverState, target: SolverState) -> bool:
    """Whether the numbers mean the same on both sides."""
    if slot != "momentum":
        return own == slot
    one_rule = source.recipe == target.recipe and (source.recipe == "equal" or source.backend == target.backend)
    return own == slot and one_rule and source.loss == target.loss


def _rate(side: SolverState, name: str) -> float:
    """At which a parameter moves, or moved; not asked for where it is not known."""
    return (side.rate or 0.0) * side.trained[name]


def _moving(value: Array, slot: str, own: str, before: float, now: float) -> Array:
    """What moves the parameter by as much at the rate ``now`` as ``value`` did at ``before``."""
    displacement = value.astype(np.float64) * (before if slot == "momentum" else 1)
    return (displacement / (now if own == "momentum" else 1)).astype(np.float32)
