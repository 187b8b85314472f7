"""check_parity: compare networks one after another with the float64 reference of the first."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from multiseg import reference
from multiseg.backend import Backend
from multiseg.dataset import Dataset
from multiseg.dataset.labels import read_as_classes
from multiseg.errors import BackendUnavailable, ModelError, MultisegError, SettingsError, setting
from multiseg.exporting import source
from multiseg.model_files.kinds import kind_of
from multiseg.model_files.reading import describe
from multiseg.network import IMAGES
from multiseg.parity import comparing
from multiseg.parity.comparing import Loss, Weights
from multiseg.parity.explanation import of_weights
from multiseg.parity.memory import freed_memory_kept
from multiseg.parity.plan import Entry, ParityPlan
from multiseg.parity.result import Parity
from multiseg.parity.rows import ParityRow
from multiseg.parity.side import ParitySide
from multiseg.parity.start import start_weights
from multiseg.parity.twin import without_dropout
from multiseg.parity.weights import has_colour_output, read_weights
from multiseg.reference import gradient
from multiseg.reference.bounded import Array, Bounded
from multiseg.scratch import TemporaryFolder
from multiseg.settings.losses import NEUTRAL_LOSSES
from multiseg.topology import Topology
from multiseg.topology.words import listed
from multiseg.worker import pool
from multiseg.worker.client import Worker

Progress = Callable[[str], None]


def check_parity(
    dataset: Dataset | str | Path, backends: Sequence[str] | None = None,
    models: Sequence[str | Path] | str | Path | None = None, weights: Sequence[str | Path] | str | Path | None = None,
    steps: int = 20, *, solver: str = "sgd", solver_options: Mapping[str, float] | None = None,
    learning_rate: float | None = None, loss: str | None = None,
    loss_options: Mapping[str, float] | None = None,
    class_weights: str | Sequence[float] | None = None, batch_size: int | None = None,
    subtract_mean: str = "pixel", divide_std: str | Sequence[float] | None = None,
    seed: int = 1, device: str = "auto", threads: int = 0, lowering: bool = True,
    progress: Progress | None = None, classes: int | None = None, model_options: Mapping[str, Any] | None = None,
    outputs: Sequence[str] = (),
) -> Parity:  # fmt: skip
    """Check that networks compute and train equally: same weights, same batches of ``dataset``, each number against float64.

    ``models``: network files of any format, or run folders, ``classes``, ``model_options`` and ``outputs`` as in
    :func:`multiseg.describe`; default: the FCN of each backend. ``backends``: names of the backends
    that compute; default: all installed ones for a single model or none, each model's own for several. A single model is
    computed by every backend, and exported to those that cannot read it; by default, those that it cannot be exported to are left
    out with the reason. Of several models each is computed by its own backend, and the first also by the other ``backends``.

    The reference is the description of the first network, computed in float64 NumPy. Compared with it are: the output of each
    layer for the inputs that the layer had; the output end to end; the loss; the gradient of each parameter; the weights after
    each of ``steps`` steps of the recipe `equal` (``solver``, ``learning_rate`` etc. as in :class:`multiseg.Job`). Tolerances
    are bounds of the rounding to float32 (multiseg.reference.bounded). After the first difference of a side, stages that depend
    on it are not compared.

    ``loss``, ``loss_options`` and ``class_weights`` are as in :class:`multiseg.Job`; by default the loss is `l2`, or of class
    indices the network file's own.

    ``weights``: files or run folders: one for the first network, used for all, or one for each model, which are compared as
    well; default: random weights from ``seed`` (multiseg.parity.start). ``progress`` is called with a description of each step.

    Raises SettingsError, DatasetError, ModelError and BackendUnavailable if the networks cannot be compared at all.
    """
    if not isinstance(steps, int) or steps < 0:
        raise SettingsError(f"{setting('steps', steps)}: must be an integer of at least 0")
    data = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
    options = {
        "solver": solver, "solver_options": dict(solver_options or {}), "learning_rate": learning_rate, "loss": loss,
        "loss_options": dict(loss_options or {}), "class_weights": class_weights,
        "batch_size": batch_size, "subtract_mean": subtract_mean, "divide_std": divide_std,
        "seed": seed, "device": device, "threads": threads,
        "lowering": lowering, "classes": classes, "model_options": model_options,
        "outputs": outputs,
    }  # fmt: skip
    plan = ParityPlan(data, _paths(models), list(backends or []), _paths(weights), options)
    with TemporaryFolder() as folder, freed_memory_kept():
        report = progress or (lambda text: None)
        entry = plan.entries[0]
        report(entry.name)
        with pool.start(entry.backend, entry.settings.threads) as worker:
            check = _Check(plan, steps, loss, folder.path, worker, report)
            check.compare(0, worker)
        for number, entry in list(enumerate(plan.entries))[1:]:
            report(entry.name)
            try:
                with pool.start(entry.backend, entry.settings.threads) as worker:
                    check.compare(number, worker)
            except (ModelError, BackendUnavailable) as error:
                if entry.backend.name not in plan.optional:
                    raise
                check.leave_out(entry.name, str(error))
        return check.parity


def _paths(names: Any) -> list[Path]:
    if names is None:
        return []
    return [Path(names)] if isinstance(names, (str, Path)) else [Path(each) for each in names]


class _Check:
    """One check: describes the reference, if possible in the ``worker`` of the first side, then compares one side at a time."""

    def __init__(
        self, plan: ParityPlan, steps: int, loss: str | None, folder: Path, worker: Worker, say: Progress
    ) -> None:
        self.plan, self.steps, self.folder, self.say = plan, steps, folder, say
        spec = plan.spec(plan.entries[0])
        self.input_shape, self.label_shape = spec.input_shape, spec.label_shape
        self.first = self._described(plan.entries[0].path, worker)
        if self.first.shared_weights:
            raise ModelError(
                f"{self.first.source}: layers share weights ({listed(self.first.shared_weights)}), which parity does not support"
            )
        self.classes = read_as_classes(self.first, self.label_shape, plan.label_kind)
        # class indices have their cross entropy unless another loss is specified
        requested = plan.entries[0].settings
        own = self.classes and loss is None and not requested.class_weights
        self.loss = None if own else requested.loss or NEUTRAL_LOSSES[IMAGES]
        self.loss_options = requested.loss_options if self.loss else {}
        settings = {
            **plan.to_json(),
            "loss": self.loss or "the file's own",
            "loss_options": self.loss_options,
            "class_weights": list(requested.class_weights),
            "steps": steps,
        }
        self.parity = Parity(self.first.source, [], settings)
        self.twin, dropped = without_dropout(self.first)
        if dropped:
            self.parity.notes.append(
                f"training is compared without {listed(dropped)}, for which each framework draws its own random numbers: on "
                "files written from the description"
            )
        self.start: dict[
            str, Array
        ] = {}  # the initial weights of all sides, by the reference's names, for images in RGB
        self.whole: Bounded | None = None  # the reference's output, computed end to end
        self.kept: list[Path] = []  # files of the first side's weights after each step, if there are other sides

    def _described(self, path: Path, worker: Worker) -> Topology:
        """Return the topology of the reference, read in ``worker`` if its backend can read the file."""
        owner, _ = kind_of(path, "network")
        if not owner.reader_needs_framework or owner.name == worker.backend.name:
            return self._used(path, worker)
        with pool.start(owner, 1) as other:
            return self._used(path, other)

    def _used(self, path: Path, worker: Worker) -> Topology:
        """Return the topology of a network file without layers that lead to no output."""
        topology = describe(path, self.input_shape, worker)
        return replace(topology, layers=topology.leading)

    def compare(self, number: int, worker: Worker) -> None:
        """Compare one side in a worker of its backend."""
        entry = self.plan.entries[number]
        self.parity.sides.append(entry.name)
        try:
            with np.errstate(all="ignore"):  # rows report numbers that are not finite
                stopped = self._compare(entry, number, worker)
        except reference.NotComputable as error:
            stopped = f"the rest: {error}"
        except MultisegError as error:  # if it names the exported file, name the user's instead
            message = re.sub(
                re.escape(str(self.folder)) + r"/\S+\.\w+", f"{entry.path} in {entry.backend.title}", str(error)
            )
            raise type(error)(message) from error
        if stopped:
            self.parity.left_out.append(f"{entry.name}: {stopped}")

    def leave_out(self, side: str, reason: str) -> None:
        """Remove a side that cannot be computed, and note why."""
        self.parity.sides[:] = [name for name in self.parity.sides if name != side]
        self.parity.rows[:] = [row for row in self.parity.rows if row.side != side]
        self.parity.left_out.append(f"{side}: {reason}")

    def _compare(self, entry: Entry, number: int, worker: Worker) -> str | None:
        """Compare one side. Returns a description of what was not compared, None if everything was."""
        side = self._side(entry, number, worker)
        if side is None:
            return "numbers, because the networks differ"
        spec = replace(self.plan.spec(entry), loss=self.loss, loss_options=self.loss_options)
        if self.loss is None:
            spec = replace(spec, class_weights=())
        side.load(replace(spec, solver=gradient.SOLVER))
        own = self._weights(entry, number, side)
        batch, loss = self.plan.batch(0), Loss.of(self.first, self.loss, self.classes, spec)
        # a file's own loss may report more than its gradient covers, such as penalties of the weights
        is_loss_known = self.loss is not None or side.path != entry.path or Loss.of(side.topology, None, True).classes
        if not is_loss_known:
            self.parity.notes.append(f"{entry.name}: the loss is not compared, because it is the file's own")
        if not self._add(
            comparing.forward(
                side, batch, own, self.start, self.whole, loss if is_loss_known else None, self.plan.subtracted
            )
        ):
            return "training, because the forward pass differs"
        trained = self._trained(side, number)
        if trained is None:
            return None
        if trained is not side:
            trained.load(replace(spec, solver=gradient.SOLVER))
        loss = Loss.of(trained.reference, self.loss, self.classes, spec)
        if not self._add(comparing.gradients(trained, batch, self.start, loss)):
            return "steps, because gradients differ"
        if self.steps:
            follow = self._follow(entry.name)
            base = self.plan.entries[0].settings.learning_rate
            self._add(comparing.steps(trained, spec, self.plan.batch, base, self.steps, self.start, loss, follow))
        return None

    def _add(self, rows: list[ParityRow]) -> bool:
        """Add rows and return whether all are within their tolerances."""
        self.parity.rows += rows
        return all(row.ok for row in rows)

    def _follow(self, name: str) -> Callable[[int, Weights], None]:
        lead, apart = not self.kept and len(self.plan.entries) > 1, self.parity.apart

        def follow(step: int, weights: Weights) -> None:
            if lead:
                # in files, so that memory does not grow with the number of steps
                self.kept.append(self.folder / f"step{step}.npz")
                np.savez(self.kept[-1], **dict[str, Any](weights))
            elif step <= len(self.kept):
                with np.load(self.kept[step - 1]) as kept:
                    apart.setdefault(name, []).append(_apart(kept, weights))
            self.say(f"{name}, step {step} of {self.steps}")

        return follow

    # --- sides and weights

    def _side(self, entry: Entry, number: int, worker: Worker) -> ParitySide | None:
        """Return the side, or None if its network differs from the reference, after adding rows for the differences."""
        path, first = entry.path, self.first
        if kind_of(path, "network")[0].name != entry.backend.name:
            path = self._exported(first, entry.backend, f"side{number}")
        topology = self._used(path, worker)
        if path == entry.path and number:
            differences = [ParityRow.wrong(entry.name, "network", first.source, line) for line in first.diff(topology)]
            self.parity.rows += differences or [ParityRow(entry.name, "network", first.source)]
            if differences:
                return None
        return ParitySide(
            entry.name, entry.backend, worker, path, first, topology, self.plan.layout(entry.backend),
            self._colours(entry.backend),
        )  # fmt: skip

    def _exported(self, topology: Topology, backend: Backend, stem: str) -> Path:
        path = self.folder / f"{stem}_{backend.name}{backend.formats[0]}"
        path.write_text(source.source(backend, topology, self.classes))
        return path

    def _trained(self, side: ParitySide, number: int) -> ParitySide | None:
        """Return the side; if it has dropout, a side in the same backend whose network has none. None if it cannot be written."""
        if self.twin is self.first:
            return side
        try:
            path = self._exported(self.twin, side.backend, f"twin{number}")
        except ModelError as error:
            self.parity.left_out.append(f"{side.name}: training: {error}")
            return None
        return replace(side, path=path, reference=self.twin, topology=self._used(path, side.worker))

    def _colours(self, backend: Backend) -> tuple[bool, bool]:
        """Return whether input and output are colours that this backend has in reverse order."""
        other = backend.channel_order != "RGB"
        return other and self.input_shape[0] == 3, other and has_colour_output(self.label_shape, self.first)

    def _weights(self, entry: Entry, number: int, side: ParitySide) -> Weights:
        """Return the weights of a side: the common ones (set by the first side), or its own, after comparing them with these."""
        if not number:
            self.start = self._start(entry, side)
            try:
                self.whole = reference.forward(self.first, self.start, self.plan.batch(0).images).output
            except reference.NotComputable as error:
                self.parity.left_out.append(f"the output, end to end: {error}")
            return self.start
        if entry.weights is None:
            return self.start
        file_weights = read_weights(entry.weights, entry.path, side.topology, self.label_shape)
        side_weights = {name: file_weights[side_name] for side_name, name in side.matching.names.items()}
        for name, expected in self.start.items():
            row = ParityRow.of(entry.name, "weights", name, reference.exact(expected), side_weights[name])
            words = None if row.ok else of_weights(self.first, name, expected, side_weights[name])
            self.parity.rows.append(replace(row, words=words or row.words))
        return side_weights

    def _start(self, entry: Entry, side: ParitySide) -> dict[str, Array]:
        names = side.matching.names.values()
        if entry.weights is not None:
            return read_weights(entry.weights, entry.path, self.first, self.label_shape)
        initial = start_weights(self.first, entry.settings.seed)
        return {name: initial[name] for name in names}


def _apart(one: Weights, other: Weights) -> float:
    """Return the largest difference of a parameter relative to its largest weight."""
    ratios = (
        float(np.abs(other[name].astype(np.float64) - value).max() / max(float(np.abs(value).max()), 1e-30))
        for name, value in one.items()
        if name in other and value.size
    )
    return max(ratios, default=0.0)
