"""The named loss of a run, in the place of its network file's own, as far as an exported file can express it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from multiseg.reference.losses import OF_CLASSES
from multiseg.run.run import Run
from multiseg.settings.losses import BINARY, LABEL_MAX, LOSSES, loss_title
from multiseg.topology import Topology
from multiseg.topology.objective import Objective


def with_loss_of(run: Run | None, topology: Topology) -> Topology:
    """Return the topology with the loss that ``run`` names in the place of the network's own; unchanged if it names none.

    A loss that exported files cannot express is a note, unless it is one of images: a file has its framework's own loss of
    images.
    """
    spec = None if run is None else run.spec()
    if run is None or spec is None or spec.loss is None:
        return topology
    objective = _objective(spec.loss, spec.loss_options, spec.class_weights, spec.ignore_index)
    if objective is not None:
        return replace(topology, objective=objective.to_json(), loss_labels=LOSSES[spec.loss].labels)
    if spec.loss not in OF_CLASSES:
        return topology
    text = loss_title(spec.loss, spec.loss_options, spec.class_weights)
    note = f"run {run.name} is trained with the {text}, which is not in this file; train it with the same loss"
    return replace(topology, notes=(*topology.notes, note))


def _objective(loss: str, options: Any, weights: tuple[float, ...], ignore: int | None) -> Objective | None:
    """Return a named cross entropy as an objective; None for other losses."""
    ignored = () if ignore is None else (ignore,)
    if loss == "cross_entropy":
        rows = range(len(weights))
        matrix = tuple(tuple(weights[row] if row == column else 0.0 for column in rows) for row in rows)
        return Objective("softmax", ignore=ignored, matrix=matrix or None)
    # the label of an exported sigmoid is scaled before it is compared with the ignored one
    if loss == BINARY and (ignore is None or options[LABEL_MAX] == 1):
        return Objective("sigmoid", ignore=ignored, label_scale=1 / options[LABEL_MAX])
    return None
