"""The backends' worker processes of a conversion: each is started once, when it is first needed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from multiseg.backend import Backend
from multiseg.model_files import kinds, reading, weights_file, writing
from multiseg.model_files.weights_file import Array, NeutralWeights
from multiseg.run.run import Run
from multiseg.topology import Topology
from multiseg.worker import pool
from multiseg.worker.client import Worker

InputShape = tuple[int, int, int]


class Frameworks:
    """Read and write files of any backend. As a context manager it ends the worker processes."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._workers: dict[str, Worker] = {}

    def opened(self, run: Run) -> Run:
        """Return the run, whose worker process is ended with the others."""
        return self._stack.enter_context(run)

    def describe(self, file: Path, input_shape: InputShape | None) -> Topology:
        """Describe a network file, see :func:`multiseg.describe`."""
        backend, _ = kinds.kind_of(file, "network")
        worker = self._worker(backend) if backend.reader_needs_framework else None
        return reading.describe(file, input_shape, worker)

    def read(self, file: Path, network: Path | None = None, input_shape: InputShape | None = None) -> NeutralWeights:
        """Read a weights file, see :func:`multiseg.model_files.reading.read_neutral`."""
        if weights_file.is_one(file):
            return weights_file.read(file)
        backend, _ = kinds.kind_of(file, "weights")
        worker = self._worker(backend) if backend.reader_needs_framework else None
        return reading.read_neutral(file, network, input_shape, worker)

    def write(
        self, backend: Backend, path: Path, weights: Mapping[str, Array], network: Path | None,
        input_shape: InputShape | None, others: Mapping[str, Array],
    ) -> dict[str, list[str]]:  # fmt: skip
        """Write a weights file, see :func:`multiseg.model_files.writing.write_weights`."""
        worker = self._worker(backend) if backend.writer and backend.writer_needs_framework else None
        return writing.write_weights(backend, path, weights, network, input_shape, worker, others)

    def _worker(self, backend: Backend) -> Worker:
        if backend.name not in self._workers:
            self._workers[backend.name] = self._stack.enter_context(pool.start(backend))
        return self._workers[backend.name]

    def close(self) -> None:
        """End the worker processes."""
        self._stack.close()

    def __enter__(self) -> Frameworks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
