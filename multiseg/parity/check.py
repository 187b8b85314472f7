"""One parity check: compares networks with the float64 reference of the first, or of a golden file."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from multiseg import reference
from multiseg.backend import Backend
from multiseg.dataset.labels import read_as_classes
from multiseg.errors import ModelError, MultisegError
from multiseg.exporting import source
from multiseg.model_files.kinds import kind_of
from multiseg.model_files.reading import describe
from multiseg.network import IMAGES, NetworkSpec
from multiseg.parity import comparing, dropout, images, stepping, tying
from multiseg.parity.comparing import Loss, Weights
from multiseg.parity.explanation import of_weights
from multiseg.parity.golden import keeping as golden_keeping
from multiseg.parity.golden import values as golden_values
from multiseg.parity.golden.plan import GoldenPlan
from multiseg.parity.golden.values import Recipe
from multiseg.parity.plan import Entry, ParityBatch, ParityPlan, Plan
from multiseg.parity.reduction import reducing
from multiseg.parity.reduction.reducing import Compared
from multiseg.parity.result import Parity
from multiseg.parity.rows import ParityRow
from multiseg.parity.side import ParitySide
from multiseg.parity.start import start_weights
from multiseg.parity.twin import without_dropout
from multiseg.parity.weights import has_colour_output, read_weights
from multiseg.reference import gradient
from multiseg.reference.bounded import PRECISIONS, Array, Bounded, computed_in
from multiseg.settings.losses import NEUTRAL_LOSSES
from multiseg.topology import Topology
from multiseg.topology.words import listed
from multiseg.worker import pool
from multiseg.worker.client import Worker

Progress = Callable[[str], None]
# those that do not need the reference if there is a golden file
KEPT_STAGES = ("network", "weights", "stored", "output")


class Check:
    """One check: describes the reference, if possible in the ``worker`` of the first side, then compares one side at a time."""

    def __init__(
        self, plan: Plan, steps: int, loss: str | None, folder: Path, worker: Worker | None, say: Progress,
        images: int = 0,
    ) -> None:  # fmt: skip
        self.plan, self.steps, self.folder, self.say, self.images = plan, steps, folder, say, images
        spec = plan.spec(plan.entries[0])
        self.input_shape, self.label_shape = spec.input_shape, spec.label_shape
        self.golden = plan.golden if isinstance(plan, GoldenPlan) else None
        self.first = self.golden.topology if self.golden else self._described(plan.entries[0].path, worker)
        if self.first.untied:
            raise ModelError(
                f"{self.first.source}: layers share weights in different layouts, or statistics ({listed(self.first.untied)}), "
                "which parity does not support"
            )
        self.classes = (
            self.golden.classes if self.golden else read_as_classes(self.first, self.label_shape, plan.label_kind)
        )
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
            **({"images": self.images} if self.images else {}),
        }
        within = f" in {self.golden.path.name}" if self.golden else ""
        self.parity = Parity(self.first.source + within, [], settings, network=self.first)
        self.twin, dropped = without_dropout(self.first)
        if dropped:
            self.parity.notes.append(
                f"training is compared without {listed(dropped)}, on files written from the description, and then with the "
                "random numbers that each framework draws"
            )
        self.start: dict[
            str, Array
        ] = {}  # the initial weights of all sides, by the reference's names, for images in RGB
        self.whole: Bounded | None = None  # the reference's output, computed end to end
        self.compared: Compared | None = None  # what the last side was compared with
        self.kept: list[Path] = []  # files of the first side's weights after each step, if there are other sides
        self.trained: tuple[str, ...] = ()  # the parameters that the solver of the first side updates
        if isinstance(plan, GoldenPlan):
            self._begin(plan)

    def _begin(self, plan: GoldenPlan) -> None:
        """Take the initial weights and the output of a golden file, and compare its values with what is computed here."""
        golden, recipe = plan.golden, plan.recipe()
        self.start, self.whole = dict(golden.weights), golden.values.layers[self.first.outputs[0]]
        self.say(f"the reference of {golden.path.name}")
        rows, notes = golden_values.compared(golden.path.name, golden.values, recipe)
        self.parity.recomputed, self.parity.notes = rows, [*self.parity.notes, *notes]
        if not self.parity.reference_changed:
            self.parity.notes.append(
                f"this version of multiseg computes what {golden.path.name} has, which multiseg {golden.version} wrote: "
                f"{len(rows)} arrays, compared to the rounding of float64"
            )
        if golden.values.left_out:
            self.parity.left_out.append(f"training, which {golden.path.name} does not have: {golden.values.left_out}")

    def keep(self, path: Path) -> None:
        """Write the reference to a golden file. Raises ModelError if it cannot be computed."""
        settings, spec = self.plan.entries[0].settings, self._spec(self.plan.entries[0])
        recipe = Recipe(
            self.first, self.start, self.trained, self.plan.batch,
            lambda topology: Loss.of(topology, self.loss, self.classes, spec),
            settings.solver, settings.learning_rate, self.steps,
        )  # fmt: skip
        self.parity.notes.append(golden_keeping.keep(path, self.plan, recipe, self.classes, spec, self.say))

    def _spec(self, entry: Entry) -> NetworkSpec:
        """Return the specification of a side's network, with the loss of the check."""
        spec = replace(self.plan.spec(entry), loss=self.loss, loss_options=self.loss_options)
        spec = replace(spec, prediction_precision=spec.precision)
        return replace(spec, class_weights=()) if self.loss is None else spec

    def _described(self, path: Path, worker: Worker | None) -> Topology:
        """Return the topology of a network file, read in ``worker`` if its backend can read the file."""
        owner, _ = kind_of(path, "network")
        if worker and (not owner.reader_needs_framework or owner.name == worker.backend.name):
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
            # rows report numbers that are not finite
            with np.errstate(all="ignore"), computed_in(PRECISIONS[entry.settings.precision]):
                stopped = self._compare(entry, number, worker)
        except reference.NotComputable as error:
            stopped = f"the rest: {error}"
        except MultisegError as error:  # if it names the exported file, name the user's instead
            message = re.sub(
                re.escape(str(self.folder)) + r"/\S+\.\w+", f"{entry.path} in {entry.backend.title}", error.template
            )
            raise type(error)(message) from error
        if stopped:
            self.parity.left_out.append(f"{entry.name}: {stopped}")

    def reduce(self, number: int, worker: Worker, folder: Path) -> None:
        """Write the smallest part of the side that was compared last, if it differs, to a new folder in ``folder``."""
        entry = self.plan.entries[number]
        row = self.parity.first_of(entry.name)
        if row is not None and self.compared is not None and not self.parity.reference_changed:
            self.say(f"{entry.name}, reducing")
            self.parity.reduced.append(
                reducing.reduce_side(self.compared, row, entry, worker, self.folder, folder, number)
            )

    def beside(self) -> Check:
        """Return a check of further sides that can run at the same time, with a result of its own.

        A side must have been compared whose weights after each step are kept.
        """
        other = copy.copy(self)
        other.parity = Parity(self.parity.reference, [], self.parity.settings, recomputed=self.parity.recomputed)
        return other

    def leave_out(self, side: str, reason: str) -> None:
        """Remove a side that cannot be computed, and note why."""
        self.parity.sides[:] = [name for name in self.parity.sides if name != side]
        self.parity.rows[:] = [row for row in self.parity.rows if row.side != side]
        self.parity.left_out.append(f"{side}: {reason}")

    def _compare(self, entry: Entry, number: int, worker: Worker) -> str | None:
        """Compare one side. Returns a description of what was not compared, None if everything was."""
        spec, rate = self._spec(entry), self.plan.entries[0].settings.learning_rate
        self.compared = Compared(self.first, self.start, self.plan.batch(0), spec, self.classes, rate, self.steps)
        side = self._side(entry, number, worker)
        if side is None:
            reason = "numbers, because the networks differ"
            first = self.plan.entries[0].path
            return (
                reason
                if self.golden
                else f"{reason}; to see where: multiseg describe {first} {entry.path} -o diff.html"
            )
        side.load(replace(spec, solver=gradient.SOLVER))
        if self._leads(number):
            self.trained = tuple(name for name in self.first.weights if name in side.trained)
        own, stored = self._weights(entry, number, side), self.golden.values if self.golden else None
        self.compared = replace(self.compared, start=self.start, side=side, own=own)
        batch, loss = self.plan.batch(0), Loss.of(self.first, self.loss, self.classes, spec)
        # a file's own loss may report more than its gradient covers, such as penalties of the weights
        is_loss_known = self.loss is not None or side.path != entry.path or Loss.of(side.topology, None, True).classes
        if not is_loss_known:
            self.parity.notes.append(f"{entry.name}: the loss is not compared, because it is the file's own")
        rows = comparing.forward(
            side, batch, own, self.start, self.whole, loss if is_loss_known else None, self.plan.subtracted, stored
        )
        if self.images and isinstance(self.plan, ParityPlan):
            rows = self._more_images(side, rows, batch, self.plan.more_batches(self.images))
        if not self._add(rows):
            return "training, because the forward pass differs"
        trained = self._trained(side, number)
        if trained is None:
            self._compare_dropout(entry, side, spec)
            return None
        if trained is not side:
            trained.load(replace(spec, solver=gradient.SOLVER))
        loss = Loss.of(trained.reference, self.loss, self.classes, spec)
        if not self._add(comparing.gradients(trained, batch, self.start, loss, stored)):
            return "steps, because gradients differ"
        if self.parity.reference_changed:
            return "layers, gradients and steps one by one, because the reference changed"
        if self.steps:
            follow = self._follow(entry.name)
            rows = stepping.steps(trained, spec, self.plan.batch, rate, self.steps, self.start, loss, follow)
            if not self._add(rows):
                return None if trained is side else "training with dropout, because steps without it differ"
        if trained is not side:
            self._compare_dropout(entry, side, spec)
        return None

    def _compare_dropout(self, entry: Entry, side: ParitySide, spec: NetworkSpec) -> None:
        """Compare the training of a side's own file with what its dropouts draw, if the framework states that."""
        loss = Loss.of(side.reference, self.loss, self.classes, spec)
        rate, count = self.plan.entries[0].settings.learning_rate, min(self.steps, dropout.STEPS)
        rows = stepping.with_dropout(side, spec, self.plan.batch, rate, count, self.start, loss)
        if rows is None:
            self.parity.notes.append(f"{entry.name}: training with dropout is not compared: what it draws is not known")
        else:
            self._add(rows)

    def _more_images(
        self, side: ParitySide, rows: list[ParityRow], first: ParityBatch, batches: Iterator[ParityBatch]
    ) -> list[ParityRow]:
        """Return the rows of the layers for all images that the check covers, and keep the worst image."""
        rows, worst = images.extended(
            side, rows, first, batches, self.start, self.plan.subtracted,
            lambda count: self.say(f"{side.name}, {count:,} of {self.images:,} images"),
        )  # fmt: skip
        if worst is not None:
            self.parity.worst_images[side.name] = worst
        return rows

    def _add(self, rows: list[ParityRow]) -> bool:
        """Add rows and return whether all are within their tolerances.

        If the reference differs from the golden file, only rows that compare with values in the file are added.
        """
        if self.parity.reference_changed:
            rows = [row for row in rows if row.stage in KEPT_STAGES]
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
            if self.golden and step == self.steps and self.golden.values.weights:
                distance = _apart(self.golden.values.weights, weights)
                self.parity.notes.append(
                    f"{name}: after {step} steps its weights differ from those in {self.golden.path.name} by up to "
                    f"{distance:.1e} of a parameter's largest weight"
                )
            self.say(f"{name}, step {step} of {self.steps}")

        return follow

    # --- sides and weights

    def _leads(self, number: int) -> bool:
        """Whether a side decides network and weights of the reference."""
        return self.golden is None and not number

    def _side(self, entry: Entry, number: int, worker: Worker) -> ParitySide | None:
        """Return the side, or None if its network differs from the reference, after adding rows for the differences."""
        path, first = entry.path, self.first
        of_golden = self.golden is not None and path == self.golden.path
        if of_golden or kind_of(path, "network")[0].name != entry.backend.name:
            path = self._exported(first, entry.backend, f"side{number}")
        topology = self._used(path, worker)
        if not self._leads(number) and (path == entry.path or (self.golden and not of_golden)):
            file_topology = topology if path == entry.path else self._described(entry.path, worker)
            lines = list(first.diff(file_topology)) or tying.differences(first, file_topology)
            differences = [ParityRow.wrong(entry.name, "network", first.source, line) for line in lines]
            assert self.compared is not None
            self.compared.other = file_topology
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
        if self._leads(number):
            self.start = self._start(entry, side)
            try:
                self.whole = reference.forward(self.first, self.start, self.plan.batch(0).images).output
            except reference.NotComputable as error:
                self.parity.left_out.append(f"the output, end to end: {error}")
            return self.start
        if entry.weights is None:
            return self.start
        file_weights = read_weights(entry.weights, entry.path, side.topology, self.label_shape)
        side_weights = tying.with_all_names(
            self.first, {name: file_weights[side_name] for side_name, name in side.matching.names.items()}
        )
        for name, expected in self.start.items():
            row = ParityRow.of(entry.name, "weights", name, reference.exact(expected), side_weights[name])
            words = None if row.ok else of_weights(self.first, name, expected, side_weights[name])
            self.parity.rows.append(replace(row, words=words or row.words))
        return side_weights

    def _start(self, entry: Entry, side: ParitySide) -> dict[str, Array]:
        if entry.weights is not None:
            return read_weights(entry.weights, entry.path, self.first, self.label_shape)
        initial = start_weights(self.first, entry.settings.seed)
        names = side.matching.names.values()
        return tying.with_all_names(self.first, {name: initial[name] for name in initial if name in names})


def _apart(one: Weights, other: Weights) -> float:
    """Return the largest difference of a parameter relative to its largest weight."""
    ratios = (
        float(np.abs(other[name].astype(np.float64) - value).max() / max(float(np.abs(value).max()), 1e-30))
        for name, value in one.items()
        if name in other and value.size
    )
    return max(ratios, default=0.0)
