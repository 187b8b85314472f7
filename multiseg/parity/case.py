"""A network with its weights, batch, loss and solver, and its check in one backend, without a dataset."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from multiseg import reference
from multiseg.backend import Backend
from multiseg.exporting import source
from multiseg.layout import Layout
from multiseg.model_files.reading import describe
from multiseg.network import CLASSES, IMAGES, NetworkSpec
from multiseg.parity import comparing, dropout, stepping
from multiseg.parity.comparing import Loss, Weights
from multiseg.parity.kept_averages import STATISTICS
from multiseg.parity.plan import ParityBatch
from multiseg.parity.result import Parity
from multiseg.parity.side import ParitySide
from multiseg.parity.twin import without_dropout
from multiseg.reference import gradient
from multiseg.reference.bounded import Array
from multiseg.settings.losses import LOSSES
from multiseg.topology import Topology
from multiseg.worker.client import Worker

NO_LABELS = (1, 1, 1)  # a shape of labels that fits every output
TRAINING = ("gradient", "step", "dropout")


@dataclass(frozen=True)
class Case:
    """Everything that a check of one network depends on.

    - ``topology``: the reference; ``weights``: float32, by its names. ``images`` (N, C, H, W) are float32, as the network
      receives them, with their channels in the same order in every backend. ``labels`` (N, C, H, W), None for a check of
      prediction alone.
    - ``loss``: a named loss with ``loss_options`` and ``class_weights``; None for the file's own; ``classes``: whether the labels
      are class indices, of which ``ignore`` does not count.
    - ``solver``: of the recipe `equal`, ``name`` and options; ``rate``: its first learning rate, ``steps``: their number.
    - ``written``: the network that the backend computes, if it is another one than the reference; ``own``: its weights by the
      reference's names, if they differ.
    """

    topology: Topology
    weights: Weights
    images: Array
    labels: Array | None = None
    loss: str | None = "l2"
    loss_options: Mapping[str, float] = field(default_factory=dict)
    class_weights: tuple[float, ...] = ()
    classes: bool = False
    ignore: int | None = None
    solver: Mapping[str, Any] = field(default_factory=lambda: dict(gradient.SOLVER))
    rate: float = 1e-3
    steps: int = 0
    seed: int = 1
    written: Topology | None = None
    own: Weights | None = None

    @property
    def batch(self) -> ParityBatch:
        """The images and labels as a batch; without labels, labels of 0."""
        labels = np.zeros((len(self.images), *NO_LABELS), np.float32) if self.labels is None else self.labels
        return ParityBatch(self.images, labels, self.images)

    @property
    def trains(self) -> bool:
        """Whether there are labels, and a parameter that a solver can update."""
        layers = self.topology.layers
        return self.labels is not None and any(
            part not in STATISTICS for layer in layers for part in layer.weights if not layer.frozen
        )

    def spec(self, path: Path, solver: Mapping[str, Any] | None, lowering: bool) -> NetworkSpec:
        """Return the specification of the network in ``path`` for a worker."""
        count = len(self.images)
        labels = NO_LABELS if self.labels is None else self.labels.shape[1:]
        channels, height, width = self.topology.input_shape
        kind = LOSSES[self.loss].labels if self.loss else CLASSES if self.classes else IMAGES
        return NetworkSpec(
            model=str(path), input_shape=(channels, height, width), label_shape=(labels[0], labels[1], labels[2]),
            solver=solver, loss=self.loss, batch_size=count, val_batch_size=count, seed=self.seed, threads=1, device="cpu",
            lowering=lowering, recipe="equal", labels=kind, loss_options=self.loss_options, ignore_index=self.ignore,
            class_weights=self.class_weights,
        )  # fmt: skip


def side_of(
    case: Case, topology: Topology, written: Topology, backend: Backend, worker: Worker, path: Path
) -> ParitySide:
    """Write ``written`` to ``path`` for a backend, and return the side that compares it with ``topology``. Raises ModelError."""
    path.write_text(source.source(backend, written, case.classes))
    channels, height, width = topology.input_shape
    described = describe(path, (channels, height, width), worker)
    # the images of a case are no colours, so that no backend reverses their channels
    return ParitySide(
        backend.title, backend, worker, path, topology, replace(described, layers=described.leading),
        Layout(backend.data_order, "RGB", None), (False, False),
    )  # fmt: skip


def check(
    case: Case, backend: Backend, worker: Worker, folder: Path, stages: Collection[str] = TRAINING, lowering: bool = False
) -> Parity:  # fmt: skip
    """Compare a case in ``worker``, a process of ``backend``, with float64; its network file is written to ``folder``.

    The forward pass and the loss are always compared, the ``stages`` after them if everything before agrees. Raises ModelError if
    the backend cannot express the network.
    """
    path = folder / f"case_{backend.name}{backend.formats[0]}"
    parity = Parity(
        case.topology.source, [backend.title], {"loss": case.loss, "solver": case.solver, "rate": case.rate}
    )
    side = side_of(case, case.topology, case.written or case.topology, backend, worker, path)
    spec = case.spec(path, gradient.SOLVER if case.trains else None, lowering)
    side.load(spec)
    try:
        with np.errstate(all="ignore"):  # rows report numbers that are not finite
            whole = reference.forward(case.topology, case.weights, case.images).output
            loss = None if case.labels is None else Loss.of(case.topology, case.loss, case.classes, spec)
            parity.rows += comparing.forward(
                side, case.batch, case.own or case.weights, case.weights, whole, loss, None
            )
            if case.trains and set(stages) & set(TRAINING) and parity.ok:
                _train(case, side, spec, parity, stages)
    except reference.NotComputable as error:
        parity.left_out.append(str(error))
    return parity


def _train(case: Case, side: ParitySide, spec: NetworkSpec, parity: Parity, stages: Collection[str]) -> None:
    """Add the comparisons of gradients and steps: without dropout, then with it."""
    whole = side
    twin, dropped = without_dropout(case.topology)
    if dropped:
        path = side.path.with_stem(f"{side.path.stem}_twin")
        side = side_of(case, twin, twin, side.backend, side.worker, path)
        side.load(replace(spec, model=str(path)))
    loss = Loss.of(twin, case.loss, case.classes, spec)
    parity.rows += comparing.gradients(side, case.batch, case.weights, loss)
    if "step" in stages and case.steps and parity.ok:
        spec = replace(spec, solver=case.solver)
        parity.rows += stepping.steps(
            side, spec, lambda step: case.batch, case.rate, case.steps, case.weights, loss, lambda step, weights: None
        )
    if dropped and "dropout" in stages and parity.ok:
        spec, loss = (
            replace(spec, model=str(whole.path), solver=case.solver),
            Loss.of(case.topology, case.loss, case.classes, spec),
        )
        count = min(case.steps, dropout.STEPS)
        parity.rows += (
            stepping.with_dropout(whole, spec, lambda step: case.batch, case.rate, count, case.weights, loss) or []
        )
