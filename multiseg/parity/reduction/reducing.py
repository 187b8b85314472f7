"""Reduce a side of a parity check that differs, and write the part to a folder."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from multiseg import reference
from multiseg.errors import ModelError, MultisegError, SettingsError
from multiseg.network import CLASSES, NetworkSpec
from multiseg.parity import case as cases
from multiseg.parity.case import Case
from multiseg.parity.comparing import Weights
from multiseg.parity.plan import Entry, ParityBatch
from multiseg.parity.reduction.differing import differing_case
from multiseg.parity.reduction.reproduction import SCRIPT, Reproduction, write
from multiseg.parity.reduction.search import Reduction, reduce, values_of
from multiseg.parity.rows import ParityRow
from multiseg.parity.side import ParitySide
from multiseg.settings.losses import LOSSES
from multiseg.topology import Topology
from multiseg.worker.client import Worker


@dataclass
class Compared:
    """What a side was compared with: the network ``first`` with ``start`` weights, and the first batch.

    ``side`` has the network of the side and its ``own`` weights, None if the networks differ: then ``other`` is the side's.
    """

    first: Topology
    start: Weights
    batch: ParityBatch
    spec: NetworkSpec
    classes: bool
    rate: float
    steps: int
    side: ParitySide | None = None
    own: Weights | None = None
    other: Topology | None = None

    @property
    def case(self) -> Case:
        """The whole network as a case. The cross entropy of a file's own loss has a name in parts."""
        spec, loss = self.spec, self.spec.loss
        ignored = set((self.first.objective or {}).get("ignore", ())) if loss is None else set()
        ignore = spec.ignore_index if spec.ignore_index is not None else min(ignored, default=None)
        named = loss or ("cross_entropy" if self.classes else "l2")
        return Case(
            self.first, self.start, self.batch.images, np.asarray(self.batch.labels, np.float32), named, spec.loss_options,
            spec.class_weights, LOSSES[named].labels == CLASSES, ignore, dict(spec.solver or {}), self.rate, self.steps,
            spec.seed, own=None if self.own is self.start else self.own,
        )  # fmt: skip


def check_folder(folder: Path) -> None:
    """Raise SettingsError if reduced parts cannot be written to a folder, before anything is computed for them."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(
            f"{folder}: is {'not empty' if folder.is_dir() else 'a file'}; specify a new folder for parts"
        )


def reduce_side(
    compared: Compared, row: ParityRow, entry: Entry, worker: Worker, files: Path, folder: Path, number: int
) -> str:  # fmt: skip
    """Write the smallest part that differs as ``row`` does to a new folder in ``folder``, and return the result in one sentence.

    Temporary network files are written to ``files``.
    """
    path = folder / entry.backend.name
    path = folder / f"{entry.backend.name}_{number}" if path.exists() else path
    try:
        reduction = _reduced(compared, row, entry, worker, files)
        return _words(write(reduction, entry.backend, worker, path, entry.name), entry.name)
    except (MultisegError, reference.NotComputable) as error:
        if worker.closed:
            raise
        return f"{entry.name}: not reduced: {error}"


def _reduced(compared: Compared, row: ParityRow, entry: Entry, worker: Worker, files: Path) -> Reduction:
    case = compared.case
    if compared.side is None:
        return _of_networks(case, compared.other, row, entry, worker, files)
    shown = _shown(compared, compared.side)
    reduction = reduce(case, row, entry.backend, worker, files, shown, entry.settings.lowering)
    if compared.side.path == entry.path and reduction.row is not None:
        remark = f"the part is written from the description of {entry.path.name}, not copied from the file"
        reduction = replace(reduction, remarks=(*reduction.remarks, remark))
    return reduction


def _shown(compared: Compared, side: ParitySide) -> Weights:
    """Return the outputs of layers in the framework."""
    side.load(replace(compared.spec, solver=None))
    side.set_weights(compared.own or compared.start)
    _, _, shown = side.predict(compared.batch.features, None)
    return shown


def _of_networks(
    case: Case, other: Topology | None, row: ParityRow, entry: Entry, worker: Worker, files: Path
) -> Reduction:  # fmt: skip
    """Return the part of the first layers in which the descriptions of two network files differ."""
    assert other is not None
    begin = time.monotonic()
    try:
        layers, part = differing_case(case, other, values_of(case, {}))
        parity = cases.check(part, entry.backend, worker, files, ())
    except (ModelError, ValueError, reference.NotComputable) as error:
        raise ModelError(f"no part of the network shows that {row.words}: {error}") from error
    remarks = [f"the network files differ: {row.words}. The part has these layers as {entry.path.name} has them"]
    if parity.first is None:
        remarks.append("both compute the same for this batch")
    return Reduction(
        row, part, parity.first, layers, len(case.topology.layers), 1, time.monotonic() - begin, tuple(remarks)
    )


def _words(reproduction: Reproduction, side: str) -> str:
    """Return the result of a reduction in one sentence."""
    reduction = reproduction.reduction
    layers = f"{len(reduction.layers)} of {reduction.of} layers ({', '.join(reduction.layers[:4])})"
    if reduction.row is None:
        return f"{side}: {'; '.join(reproduction.remarks)}; see {reproduction.folder}"
    alone = {
        True: f"{SCRIPT} shows it with the framework alone",
        False: f"{SCRIPT} agrees with the framework alone",
        None: "no program shows it",
    }[reproduction.alone]
    return f"{side}: reduced to {layers} in {reduction.seconds:.0f} s; {alone}: {reproduction.folder}"
