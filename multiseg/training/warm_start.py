"""Starting from a run or a weights file, with what its solver kept; and leaving layers as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.conversion.channels import swapped
from multiseg.errors import ModelError, SettingsError
from multiseg.model_files import reading
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.network import NetworkSpec, is_frozen
from multiseg.run.reading import is_run
from multiseg.run.run import Run
from multiseg.run.solver_state import SolverState, carried
from multiseg.run.state import neutral_of, solver_state
from multiseg.topology import Topology
from multiseg.topology.matching import match
from multiseg.worker.client import Worker

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Beginning:
    """A training that is about to begin: its network, loaded in ``worker``, and the learning rate of its first step."""

    worker: Worker
    spec: NetworkSpec
    described: Mapping[str, Any]
    rate: float

    def topology(self) -> Topology:
        """Of its network. Raises ModelError where it cannot be described."""
        return reading.describe(self.spec.model, self.spec.input_shape, self.worker)


def start_from(path: Path, job: Beginning, with_state: bool | None) -> dict[str, Any]:
    """Give a network the weights in ``path``, a run folder or a weights file, that fit; what else it has stays as it is.

    Parameters go by name and shape; those of a run whose network is the same under other names by structure. Where the network
    is fed its colours in another order, weights are reordered. ``with_state`` says whether what the solver kept comes along:
    None where there is any, True or not at all, False never.

    Returns names of parameters: ``matched``, ``missing`` (in the source), ``unused`` (of the source), ``reshaped`` (of another
    shape there), ``renamed`` (theirs by ours), ``reversed`` (reordered for the colours); and ``solver_state``: of which solver,
    how each slot came, and ``unused``, the parameters of which it was not needed; None where it did not come. Raises ModelError
    or RunError where the source cannot be read or nothing in it fits, SettingsError for a state that cannot be carried on.
    """
    run = Run.open(path) if is_run(path) else None
    given = neutral_of(run, with_state is not False) if run else reading.read_neutral(path)
    own = job.worker.call("get_weights")
    names = _names(given.weights, own, run, job)
    matched = {name: theirs for name, theirs in names.items() if given.weights[theirs].shape == own[name].shape}
    if not matched:
        raise ModelError(
            f"{path}: no weights in it fit the network by name and shape; it has {_listed(given.weights)}, "
            f"the network {_listed(own)}"
        )
    weights = {name: given.weights[theirs] for name, theirs in matched.items()}
    state, came = _state(given, job, matched, path, with_state)
    turned = weights
    if _other_colours(given, job):
        topology = job.topology()
        turned = _turned(topology, weights, own, job.spec)
        state = state and _turned_state(topology, state, own, job.spec)
    job.worker.call("set_weights", weights={**own, **turned}, state=state)
    return {
        "matched": list(matched),
        "missing": [name for name in own if name not in names],
        "unused": [name for name in given.weights if name not in names.values()],
        "reshaped": [name for name in names if name not in matched],
        "renamed": {name: theirs for name, theirs in matched.items() if name != theirs},
        "reversed": [name for name in weights if not np.array_equal(turned[name], weights[name], equal_nan=True)],
        "snapshot": run.snapshot.path.name if run and run.snapshot else None,
        "solver_state": came,
    }


def _names(given: Mapping[str, Array], own: Mapping[str, Array], run: Run | None, job: Beginning) -> dict[str, str]:
    """Parameters of the source by the network's own."""
    found = {name: name for name in own if name in given}
    if run is None or all(name in found and given[name].shape == own[name].shape for name in own):
        return found
    try:
        parameters = match(reading.describe(run.model, job.spec.input_shape), job.topology()).parameters
    except ModelError:  # other networks, or such as cannot be described: what has the same name is meant
        return found
    theirs = {name: parameters.get(name, name) for name in own}
    return {name: other for name, other in theirs.items() if other in given}


def _state(
    given: NeutralWeights, job: Beginning, names: Mapping[str, str], path: Path, wanted: bool | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """What the job's solver is given, and what is told of it."""
    there = None if wanted is False else SolverState.of(given, str(path))
    if there is None:
        if wanted:
            raise SettingsError(
                f"solver_state=True: {path} holds weights alone; name a run folder, or a file that one was converted to"
            )
        return None, None
    here = solver_state(job.worker, job.spec, job.described, job.rate)
    found = carried(there, here, names, str(path))
    used = {names[name] for name in here.trained}
    return found.state, {
        "solver": there.solver,
        "steps": there.steps,
        "slots": found.how,
        "unused": [name for name in there.trained if name not in used],
    }


def _other_colours(given: NeutralWeights, job: Beginning) -> bool:
    """Whether the source's network is fed colours in another order; not where that is not known."""
    colours = 3 in (job.spec.input_shape[0], job.spec.label_shape[0])
    return colours and given.channel_order not in (None, job.worker.backend.channel_order)


def _turned(
    topology: Topology, values: Mapping[str, Array], own: Mapping[str, Array], spec: NetworkSpec
) -> dict[str, Array]:
    """Values of parameters, reordered for the colours in this network's order."""
    reads, makes = spec.input_shape[0] == 3, spec.label_shape[0] == 3
    found = swapped(topology, {**own, **values}, reads, makes)
    return {name: found[name] for name in values}


def _turned_state(
    topology: Topology, state: Mapping[str, Any], own: Mapping[str, Array], spec: NetworkSpec
) -> dict[str, Any]:
    slots: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        slot, _, name = key.partition("/")
        if name in own and own[name].shape == value.shape:  # not a number for the whole parameter
            slots.setdefault(slot, {})[name] = value
    turned = {slot: _turned(topology, values, own, spec) for slot, values in slots.items()}
    return {**state, **{f"{slot}/{name}": value for slot, values in turned.items() for name, value in values.items()}}


def check_frozen(patterns: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Raise SettingsError where a pattern names no layer, or nothing is left to train."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
    for pattern in patterns:
        if not any(is_frozen(name, [pattern]) for name in parameters):
            raise SettingsError(f"freeze={pattern!r}: the network has no such layer; it has: {', '.join(layers)}")
    if parameters and all(is_frozen(name, patterns) for name in parameters):
        raise SettingsError(f"freeze={list(patterns)!r}: leaves no layer to train")


def _listed(weights: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in weights.items()) or "none"
