"""Start a training from the weights of a run or a weights file, with the solver state; check frozen layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from multiseg.conversion.channels import reordered
from multiseg.conversion.matching import WHAT_FITS, ParameterMatch, match_parameters
from multiseg.conversion.parameters import ParameterSet, listed
from multiseg.errors import ModelError, SettingsError, setting
from multiseg.model_files import kinds, reading
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.network import NetworkSpec, is_frozen
from multiseg.run.reading import is_run
from multiseg.run.run import Run
from multiseg.run.solver_state import SolverState, carried
from multiseg.run.state import neutral_of, solver_state
from multiseg.topology import Topology
from multiseg.worker.client import Worker

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Beginning:
    """A training before its first step: its network, loaded in ``worker``, and the learning rate of the first step."""

    worker: Worker
    spec: NetworkSpec
    described: Mapping[str, Any]
    rate: float

    def topology(self) -> Topology:
        """Describe the network. Raises ModelError if that is not possible."""
        return reading.describe(self.spec.model, self.spec.input_shape, self.worker)


def start_from(path: Path, job: Beginning, with_state: bool | None) -> dict[str, Any]:
    """Load the weights in ``path``, a run folder or a weights file, that fit the network; other parameters keep their values.

    Parameters are matched by name; if a run's network is the same with other names, by structure. A parameter of another shape
    but the same count of numbers is copied in the order of its numbers: the weights (O, I) of a dense layer become those of a
    convolution (O, C, H, W), as neutral weights of dense layers are in the order C, H, W in all frameworks. If the network is fed
    images in another channel order, the weights are reordered. ``with_state``: whether the solver's state is loaded too, None if
    there is one, True to require it, False never.

    Returns names of parameters: ``matched``, ``missing`` (in the source), ``unused`` (of the source), ``reshaped`` (of another
    count in the source), ``by_count`` (of another shape but the same count: its shape in the source), ``renamed`` (the source's
    names by the network's), ``reversed`` (reordered for the channel order); and ``solver_state``: the solver, how each slot was
    carried over, and ``unused``, the parameters whose state was not needed; None
    if it was not loaded. Raises ModelError or RunError if the source cannot be read or nothing in it fits, SettingsError if a
    frozen parameter would keep its random initial values, or if the solver's state cannot be carried over.
    """
    run = Run.open(path) if is_run(path) else None
    own = job.worker.call("get_weights")
    source = neutral_of(run, with_state is not False) if run else _read(path, job).without_prefix(own)
    matching = _match(source.weights, own, path, run, job)
    by_count = {
        name: source.weights[matching.names[name]].shape
        for name in matching.reshaped
        if _are_dense_and_convolution(source.weights[matching.names[name]].shape, own[name].shape)
    }
    names = {name: theirs for name, theirs in matching.names.items() if name in by_count or name in matching.fitting}
    matching = replace(matching, reshaped=tuple(name for name in matching.reshaped if name not in by_count))
    if not names:
        raise ModelError(
            f"{path}: no weights in it fit the network by name and count of numbers; it has {_shapes(source.weights)}, "
            f"the network {_shapes(own)}"
        )
    _check_frozen_start(path, job.spec.frozen, matching, own)
    source = _in_shapes_of(own, source, {name: names[name] for name in by_count})
    weights = {name: source.weights[theirs] for name, theirs in names.items()}
    state, state_summary = _state(source, job, names, path, with_state)
    reversed_weights = weights
    if _other_order(source, job):
        topology = job.topology()
        reversed_weights = _reordered(topology, weights, own, source, job)
        state = state and _reordered_state(topology, state, own, source, job)
    job.worker.call("set_weights", weights={**own, **reversed_weights}, state=state)
    changed = [name for name in weights if not np.array_equal(reversed_weights[name], weights[name], equal_nan=True)]
    return {
        "matched": list(names),
        "missing": list(matching.missing),
        "unused": list(matching.unused),
        "reshaped": list(matching.reshaped),
        "by_count": {name: list(shape) for name, shape in by_count.items()},
        "renamed": matching.renamed,
        "reversed": changed,
        "snapshot": run.snapshot.path.name if run and run.snapshot else None,
        "solver_state": state_summary,
    }


def _read(path: Path, job: Beginning) -> NeutralWeights:
    """Return the weights in a file; one without names or types of layers is read as weights of the job's network."""
    if not kinds.needs_network(path):
        return reading.read_neutral(path)
    channels, height, width = job.spec.input_shape
    return reading.read_neutral(path, Path(job.spec.model), (channels, height, width))


def _in_shapes_of(own: Mapping[str, Array], source: NeutralWeights, names: Mapping[str, str]) -> NeutralWeights:
    """Return the source with parameters in the network's shapes, also in the solver's state; ``names`` are the source's."""
    if not names:
        return source
    shapes = {theirs: own[name].shape for name, theirs in names.items()}

    def shaped(name: str, value: Array) -> Array:
        shape = shapes.get(name)
        return value if shape is None or value.size != math.prod(shape) else value.reshape(shape)

    weights = {name: shaped(name, value) for name, value in source.weights.items()}
    state = {key: shaped(key.partition("/")[2], value) for key, value in source.state.items()}
    return replace(source, weights=weights, state=state)


def surgery(summary: Mapping[str, Any]) -> str | None:
    """Return a note if the result of :func:`start_from` copied parameters that have another shape in the source, else None."""
    by_count = summary.get("by_count")
    if not by_count:
        return None
    names = listed(f"{name} from {tuple(shape)}" for name, shape in by_count.items())
    return f"{len(by_count)} parameters of equal count and another shape were copied number by number: {names}"


def partial_start(summary: Mapping[str, Any]) -> str | None:
    """Return a warning if the result of :func:`start_from` left parameters at their initial values, else None."""
    missing, reshaped = summary["missing"], summary["reshaped"]
    count = len(missing) + len(reshaped)
    if not count:
        return None
    reasons = [f"not in the source: {listed(missing)}"] if missing else []
    reasons += [f"of another shape there: {listed(reshaped)}"] if reshaped else []
    return (
        f"{count} of {count + len(summary['matched'])} parameters keep their initial values, as the weights that training starts "
        f"from do not fit them ({'; '.join(reasons)})"
    )


def _are_dense_and_convolution(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether one shape is that of a dense layer (O, I), and the other has as many outputs and numbers."""
    return 2 in (len(shape), len(other)) and shape[:1] == other[:1] and math.prod(shape) == math.prod(other)


def _match(
    source: Mapping[str, Array], own: Mapping[str, Array], path: Path, run: Run | None, job: Beginning
) -> ParameterMatch:
    def describe_run() -> Topology:
        assert run is not None
        return reading.describe(run.model, job.spec.input_shape)

    return match_parameters(
        ParameterSet(str(path), _shapes_of(source), describe_run if run else None),
        ParameterSet(job.spec.model, _shapes_of(own), job.topology),
        WHAT_FITS,
    )


def _shapes_of(weights: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in weights.items()}


def _state(
    source: NeutralWeights, job: Beginning, names: Mapping[str, str], path: Path, wanted: bool | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the state for the job's solver, and its summary; None for both if it is not loaded."""
    source_state = None if wanted is False else SolverState.of(source, str(path))
    if source_state is None:
        if wanted:
            raise SettingsError(
                f"{setting('solver_state', True)}: {path} holds weights without a solver's state; "
                "use a run folder, or a safetensors file that "
                "a run was converted to"
            )
        return None, None
    target_state = solver_state(job.worker, job.spec, job.described, job.rate)
    result = carried(source_state, target_state, names, str(path))
    used = {names[name] for name in target_state.trained}
    return result.state, {
        "solver": source_state.solver,
        "steps": source_state.steps,
        "slots": result.how,
        "unused": [name for name in source_state.trained if name not in used],
    }


def _colours(spec: NetworkSpec) -> tuple[bool, bool]:
    """Whether the network's input and its output are images with three colour channels."""
    return spec.input_shape[0] == 3, spec.label_shape[0] == 3


def _other_order(source: NeutralWeights, job: Beginning) -> bool:
    """Whether the source's network is fed another channel order than this one; False if its order is unknown."""
    return any(_colours(job.spec)) and source.channel_order not in (None, job.worker.backend.channel_order)


def _reordered(
    topology: Topology, values: Mapping[str, Array], own: Mapping[str, Array], source: NeutralWeights, job: Beginning
) -> dict[str, Array]:
    """Return values of parameters, reordered for this network's channel order."""
    order = job.worker.backend.channel_order
    result = reordered(topology, {**own, **values}, source.channel_order, order, _colours(job.spec))
    return {name: result[name] for name in values}


def _reordered_state(
    topology: Topology, state: Mapping[str, Any], own: Mapping[str, Array], source: NeutralWeights, job: Beginning
) -> dict[str, Any]:
    slots: dict[str, dict[str, Any]] = {}
    for key, value in state.items():
        slot, _, name = key.partition("/")
        if name in own and own[name].shape == value.shape:  # not a single number for the whole parameter
            slots.setdefault(slot, {})[name] = value
    results = {slot: _reordered(topology, values, own, source, job) for slot, values in slots.items()}
    return {**state, **{f"{slot}/{name}": value for slot, values in results.items() for name, value in values.items()}}


def check_frozen(patterns: Sequence[str], parameters: Mapping[str, Any]) -> None:
    """Raise SettingsError if a pattern matches no layer, or if no layer is left to train."""
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
    for pattern in patterns:
        if not any(is_frozen(name, [pattern]) for name in parameters):
            raise SettingsError(
                f"{setting('freeze', pattern)}: the network has no such layer; it has: {', '.join(layers)}"
            )
    if parameters and all(is_frozen(name, patterns) for name in parameters):
        raise SettingsError(f"{setting('freeze', list(patterns))}: leaves no layer to train")


def _check_frozen_start(
    path: Path, patterns: Sequence[str], matching: ParameterMatch, own: Mapping[str, Array]
) -> None:
    """Raise SettingsError if a frozen parameter has random initial values and would keep them, as nothing in ``path`` fits it."""
    for name in (*matching.missing, *matching.reshaped):
        if is_frozen(name, patterns) and _is_random(own[name]):
            reason = "has another shape" if name in matching.reshaped else "is missing"
            raise SettingsError(
                f"{setting('freeze', list(patterns))}: {name!r} would stay at random initial values, "
                f"as it {reason} in {path}; leave its "
                "layer out of freeze, or start from weights that fit it"
            )


def _is_random(values: Array) -> bool:
    """Whether most values differ from each other, unlike in constant initial values and in kernels of bilinear upsampling."""
    return values.size > 1 and np.unique(values).size > values.size / 2


def _shapes(weights: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in weights.items()) or "none"
