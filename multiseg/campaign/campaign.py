"""fuzz: check random networks in all backends, reduce those that differ, and collect them in a folder with a page."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from multiseg import backend as registry
from multiseg.backend import Backend, KnownFault
from multiseg.campaign.networks import draw_case
from multiseg.campaign.outcome import Outcome, Outcomes, Verdict
from multiseg.campaign.page import render
from multiseg.campaign.result import Campaign
from multiseg.errors import ModelError, MultisegError, SettingsError
from multiseg.exporting import source
from multiseg.files import make_folder, write_text
from multiseg.files.scratch import TemporaryFolder
from multiseg.parity import case as cases
from multiseg.parity.case import Case
from multiseg.parity.reduction.reproduction import write
from multiseg.parity.reduction.search import reduce as reduce_case
from multiseg.parity.result import Parity
from multiseg.worker import pool
from multiseg.worker.client import Worker

PAGE, PARTS = "index.html", "parts"
RENEWED = 500  # networks after which a backend gets a new process, because some frameworks keep memory for each network
EVERY = 200  # networks between two versions of the page

Progress = Callable[["Campaign"], None]


def fuzz(
    networks: int = 1000, seed: int = 1, backends: Sequence[str] | None = None, output: str | Path | None = None, *,
    first: int = 0, reduce: bool = True, progress: Progress | None = None,
) -> Campaign:  # fmt: skip
    """Check the random networks ``first`` to ``networks`` - 1 of the campaign ``seed`` in each backend, against float64.

    Network, weights, batch, loss and solver follow from ``seed`` and the number of the network. The forward pass, the loss, the
    gradients and two steps are compared as in :func:`multiseg.check_parity`. ``backends``: default: all that are installed.

    ``output``: a folder, new or of the same campaign, which is continued: results.jsonl has the outcomes, index.html is their
    page, and ``parts`` has the reduced part of each network that differs (unless not ``reduce``). Ctrl-C keeps what was found.
    ``progress`` is called after each network.

    Raises SettingsError for a folder of another campaign, BackendUnavailable if a framework cannot be loaded.
    """
    for name, value in {"networks": networks, "first": first, "seed": seed}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise SettingsError(f"{name}={value!r}: must be an integer of at least 0")
    chosen = [registry.get(name) for name in dict.fromkeys(backends or registry.names())]
    if not backends:
        chosen = [backend for backend in chosen if backend.exporter is not None]
    folder = None if output is None else Path(output)
    if folder is not None:
        make_folder(folder)
    campaign = Campaign(Outcomes(seed, folder), tuple(backend.name for backend in chosen), networks)
    with _Checks(seed, folder, reduce) as checks:
        begin, done = time.monotonic(), campaign.outcomes.done
        try:
            for number in range(first, networks):
                todo = [backend for backend in chosen if (number, backend.name) not in done]
                case = draw_case(seed, number) if todo else None
                for backend in todo:
                    assert case is not None
                    campaign.outcomes.add(checks.outcome(number, case, backend))
                    campaign.checked += 1
                    campaign.seconds = time.monotonic() - begin
                if todo and progress is not None:
                    progress(campaign)
                if todo and number % EVERY == EVERY - 1:
                    _write_page(campaign, folder)
        except KeyboardInterrupt:
            campaign.interrupted = True
            checks.stop()
    _write_page(campaign, folder)
    return campaign


def _write_page(campaign: Campaign, folder: Path | None) -> None:
    if folder is not None:
        write_text(folder / PAGE, render(campaign))


class _Checks:
    """The processes of the backends, and the folder of temporary network files."""

    def __init__(self, seed: int, folder: Path | None, reduces: bool) -> None:
        self.seed, self.folder, self.reduces = seed, folder, reduces
        self._workers: dict[str, tuple[Worker, int]] = {}
        self._faults: dict[str, set[KnownFault]] = {}  # known ones that the process of a backend has met
        self._stack = ExitStack()

    def __enter__(self) -> _Checks:
        self.files = self._stack.enter_context(TemporaryFolder()).path
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stack.close()

    def stop(self) -> None:
        """End the processes."""
        for worker, _ in self._workers.values():
            worker.close()
        self._workers.clear()

    def _worker(self, backend: Backend) -> Worker:
        worker, uses = self._workers.get(backend.name, (None, 0))
        if worker is None or worker.closed or uses >= RENEWED:
            if worker is not None:
                worker.close()
            worker, uses = pool.start(backend, 1), 0
            self._faults[backend.name] = set()
        self._workers[backend.name] = worker, uses + 1
        return worker

    def outcome(self, number: int, case: Case, backend: Backend) -> Outcome:
        """Check a case in a backend, and reduce it if it differs."""
        begin = time.monotonic()
        facts = Outcome(
            number, backend.name, "agrees", types=tuple(layer.type for layer in case.topology.layers), loss=case.loss or "",
            solver=case.solver["name"],
        )  # fmt: skip
        values = vars(facts)

        def result(verdict: Verdict, words: str = "", **more: object) -> Outcome:
            seconds = round(time.monotonic() - begin, 3)
            return Outcome(**{**values, "verdict": verdict, "words": words, "seconds": seconds, **more})  # type: ignore[arg-type]

        try:
            source.source(backend, case.topology, case.classes)
        except ModelError as error:
            return result("not expressible", str(error))
        worker = self._worker(backend)
        self._faults[backend.name] |= {fault for fault in _known_faults(case, backend) if fault.ends_process}
        try:
            with np.errstate(all="ignore"):
                parity = cases.check(case, backend, worker, self.files)
        except MultisegError as error:
            return result(*self._failure(case, backend, worker, str(error)))
        count = len(parity.rows)
        if parity.ok:
            return result("agrees" if parity.complete else "partly", _rest(parity), comparisons=count)
        words = parity.first_divergence or ""
        if (faults := _known_faults(case, backend)) and self._agrees_lowered(case, backend):
            return result("known fault", f"agrees with lowering, which avoids {_sections(faults)}: {words}")
        return result("differs", words, comparisons=count, **self._reduced(number, case, backend, worker, parity))

    def _failure(self, case: Case, backend: Backend, worker: Worker, words: str) -> tuple[Verdict, str]:
        """Return the verdict on an error, and its words. A process may die of a fault of a network that it trained before."""
        if not worker.closed:
            return "error", words
        faults = sorted(self._faults[backend.name])
        if not faults:
            return "crash", words
        try:
            with np.errstate(all="ignore"):
                parity = cases.check(case, backend, self._worker(backend), self.files, lowering=True)
        except MultisegError as error:
            return "crash", f"{words}; in a new process, with lowering: {error}"
        if not parity.ok:
            return "crash", f"{words}; in a new process, with lowering: {parity.first_divergence}"
        return "known fault", f"agrees with lowering in a new process; this one had met {_sections(faults)}: {words}"

    def _agrees_lowered(self, case: Case, backend: Backend) -> bool:
        """Return whether a case that differs agrees with lowering."""
        try:
            with np.errstate(all="ignore"):
                return cases.check(case, backend, self._worker(backend), self.files, lowering=True).ok
        except MultisegError:
            return False

    def _reduced(self, number: int, case: Case, backend: Backend, worker: Worker, parity: Parity) -> dict[str, object]:
        """Reduce a case that differs, write it to the folder, and return facts of the part."""
        first = parity.first
        if self.folder is None or not self.reduces or first is None:
            return {}
        part = Path(PARTS) / f"{number}_{backend.name}"
        try:
            reduction = reduce_case(case, first, backend, worker, self.files)
            reproduction = write(
                reduction, backend, worker, self.folder / part, f"network {number} of seed {self.seed}"
            )
        except MultisegError as error:
            return {"words": f"{parity.first_divergence}; while it was reduced: {error}"}
        types = tuple(layer.type for layer in reduction.case.topology.layers)
        return {"part": str(part), "layers": types, "alone": reproduction.alone}


def _known_faults(case: Case, backend: Backend) -> set[KnownFault]:
    """Return the faults of the backend that lowering avoids in the layers of a network."""
    if backend.known_faults is None:
        return set()
    module, _, function = backend.known_faults.partition(":")
    known = getattr(importlib.import_module(module), function)
    shapes = case.topology.shapes
    faults = (known(layer.type, layer.parameters, shapes[layer.inputs[0]]) for layer in case.topology.layers)
    return {fault for fault in faults if fault}


def _sections(faults: Iterable[KnownFault]) -> str:
    return ", ".join(f"docs/upstream-faults.md#{fault.section}" for fault in sorted(faults))


def _rest(parity: Parity) -> str:
    """Return what was not compared, in words."""
    unjudged = [row for row in parity.rows if row.unjudged]
    lines = [*parity.left_out, *(f"{row.unjudged} numbers of {row.name} ({row.stage})" for row in unjudged[:1])]
    return "; ".join(lines)
