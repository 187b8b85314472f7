"""The contract of backends as tests: subclass :class:`BackendContract` in a test file to run it for your backend with pytest.

    from multiseg.testing import BackendContract

    class TestMine(BackendContract):
        backend = "mine"

The tests are independent of the framework: arithmetic is checked against float64 NumPy, finite differences, and the formulas
of docs/solvers.md, and all calls go through the backend's process, as in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from multiseg import backend as registry
from multiseg.settings.solvers import NEUTRAL
from multiseg.testing.bench import Bench, Shape
from multiseg.testing.contract.arrays import Arrays
from multiseg.testing.contract.files import Files
from multiseg.testing.contract.interface import Interface
from multiseg.testing.contract.losses import Losses
from multiseg.testing.contract.processes import Processes
from multiseg.testing.contract.repeating import Repeating
from multiseg.testing.contract.solvers import Solvers
from multiseg.testing.contract.weights import Weights

__all__ = ["BackendContract"]


class BackendContract(Interface, Files, Arrays, Weights, Losses, Solvers, Repeating, Processes):
    """The tests of one backend with one network.

    - ``backend``: the name of its entry point;
    - ``model``: a network file, by default the backend's ``default_model``. A small network keeps the tests fast;
    - ``input_shape``: the shape of its images (C, H, W); ``label_shape``: that of its labels, by default the same. Different
      height and width detect more errors.
    """

    backend: ClassVar[str]
    model: ClassVar[str | Path | None] = None
    input_shape: ClassVar[Shape] = (1, 32, 48)
    label_shape: ClassVar[Shape | None] = None

    @classmethod
    def start(cls, threads: int = 1) -> Bench:
        """Start a new process of the backend."""
        return Bench(cls.backend, cls.model, cls.input_shape, cls.label_shape or cls.input_shape, threads)

    @pytest.fixture(scope="class")
    @classmethod
    def bench(cls) -> Iterator[Bench]:
        """Yield one process shared by the tests of the class, since frameworks start slowly."""
        bench = cls.start()
        yield bench
        bench.close()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize ``solver`` with the backend's solvers, and ``rule`` with those of the recipe `equal`."""
        solvers = list(registry.get(self.backend).solvers)
        if "solver" in metafunc.fixturenames:
            metafunc.parametrize("solver", solvers)
        if "rule" in metafunc.fixturenames:
            metafunc.parametrize("rule", [solver for solver in solvers if solver in NEUTRAL])
