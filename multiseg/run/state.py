"""The trained weights and the solver state of a run, in neutral form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multiseg import backend as registry
from multiseg.errors import RunError
from multiseg.model_files import copies
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.network import STEPS, NetworkSpec
from multiseg.run.run import Run
from multiseg.run.solver_state import SolverState
from multiseg.settings.losses import loss_text
from multiseg.worker import pool
from multiseg.worker.client import Worker


def neutral_of(run: Run, state: bool = True) -> NeutralWeights:
    """Return the weights of a run's snapshot and, with ``state``, its solver state; starts a process of the run's backend.

    Raises RunError if there is no snapshot, BackendUnavailable if the run's framework is not installed.
    """
    if run.snapshot is None:
        raise RunError(f"{run.path}: has no snapshot yet; train it first")
    run.snapshot.verify()
    backend, spec = registry.get(run.backend), run.spec(trains=state)
    with pool.start(backend, run.settings["threads"]) as worker:
        described = worker.call("load", spec=spec.to_json())
        worker.call("restore", folder=str(run.snapshot.path.resolve()))
        weights = worker.call("get_weights")
        if not state:
            return NeutralWeights(weights, backend.channel_order)
        current_state = solver_state(worker, spec, described, run.snapshot.position.rate)
    return NeutralWeights(weights, backend.channel_order, current_state.slots, current_state.to_json())


def solver_state(worker: Worker, spec: NetworkSpec, described: Mapping[str, Any], rate: float | None) -> SolverState:
    """Return the solver state of the network in ``worker``; ``rate`` is that of the last (else the first) step."""
    assert spec.solver is not None
    slots = dict(worker.call("get_weights", state=True))
    steps = slots.pop(STEPS, None)
    model = Path(spec.model)
    return SolverState(
        solver=spec.solver["name"],
        recipe=spec.recipe,
        backend=worker.backend.name,
        loss=loss_text(spec.loss, spec.loss_options, spec.class_weights)
        if spec.loss
        else f"{model.name}'s own ({copies.fingerprint(model)})",
        rate=rate,
        trained=described["trained"],
        steps=None if steps is None else int(steps),
        slots=slots,
    )
