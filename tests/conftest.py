"""Which backends the tests run over, and the fixtures that several folders share.

MULTISEG_TEST_BACKENDS lists the backends, separated by commas; unset means all three. A listed backend that does not load
fails the whole run: nothing is skipped because a framework is missing.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from helpers import lending
from helpers.lending import lend
from helpers.linear_training import SIZE
from helpers.nightly import nightly
from helpers.void_masks import void_masks
from multiseg.job.job import Job
from multiseg.training.preparation import network_spec
from multiseg.worker.client import Worker

ALL = ("caffe", "tensorflow", "torch")
REQUIRED = [name for name in os.environ.get("MULTISEG_TEST_BACKENDS", ",".join(ALL)).split(",") if name]
TESTS = Path(__file__).parent
FOURTH = TESTS / "fourth_backend"
# files that import a framework when they are collected
IMPORTING = {
    "backends/caffe/test_caffe_forks.py": {"caffe", "torch"},
    "backends/tensorflow/test_tensorflow_probabilities.py": {"tensorflow"},
    "backends/torch/test_torch_metrics.py": {"torch"},
    "backends/torch/test_torch_probabilities.py": {"torch"},
    "contract/test_differential.py": {"torch"},
}
# Files that take longest, and the folders in the order in which they start: at the end two processes share short files.
LONGEST = (
    "system/test_cluster_jobs.py",
    "system/test_examples.py",
    "system/test_ranks.py",
    "contract/test_training.py",
    "contract/test_converting.py",
    "system/power/test_power_cuts.py",
    "system/test_install.py",
)
FOLDERS = ("system", "contract", "backends", "core")
collect_ignore = [path for path, backends in IMPORTING.items() if not backends <= set(REQUIRED)]

Loaded = Callable[..., Worker]
Trained = Callable[[str], Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-core",
        action="store_true",
        help="Leave out the tests that need no backend: tox's environment `core` runs these.",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    # a shell that starts the tests in the background makes them and their children ignore Ctrl-C, which tests send
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unknown = sorted(set(REQUIRED) - set(ALL))
    if unknown:
        pytest.exit(f"MULTISEG_TEST_BACKENDS names {unknown[0]!r}; known are: {', '.join(ALL)}", 4)
    in_worker = hasattr(session.config, "workerinput")  # of pytest-xdist, whose main process has checked
    if not REQUIRED or session.config.option.collectonly or in_worker:
        return
    problems = [status.problem for status in multiseg.backends() if status.name in REQUIRED and not status.available]
    if problems:
        pytest.exit("a required backend does not load: " + "; ".join(map(str, problems)), 4)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        first = metafunc.definition.get_closest_marker("first_backend") and REQUIRED
        metafunc.parametrize("backend", nightly(REQUIRED, large=REQUIRED[1:]) if first else REQUIRED)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def wanted(item: pytest.Item) -> bool:
        needed = [set(mark.args) for mark in item.iter_markers("needs")]
        over_backends = (
            bool({"backend", "backends"} & set(getattr(item, "fixturenames", ())))
            or item.path.relative_to(TESTS).parts[0] == "contract"
        )
        if over_backends and not REQUIRED:
            return False
        of_core = not needed and not over_backends
        return all(names <= set(REQUIRED) for names in needed) and not (of_core and config.getoption("--no-core"))

    left_out = [item for item in items if not wanted(item)]
    if left_out:
        items[:] = [item for item in items if wanted(item)]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=_start_order)


def _start_order(item: pytest.Item) -> tuple[int, int]:
    path = item.path.relative_to(TESTS)
    long = LONGEST.index(path.as_posix()) if path.as_posix() in LONGEST else len(LONGEST)
    return long, FOLDERS.index(path.parts[0])


@pytest.fixture(scope="session")
def backends() -> list[str]:
    """All backends that this run tests; a test that takes `backend` runs once over each."""
    return REQUIRED


@pytest.fixture(scope="session")
def images(multiseg_images: Path) -> Path:
    """120 pairs of 32x32 triangles and a 5x5 grid."""
    return multiseg_images


@pytest.fixture(scope="session")
def dataset(multiseg_dataset: multiseg.Dataset) -> multiseg.Dataset:
    """108 pairs for training, 12 for validation."""
    return multiseg_dataset


@pytest.fixture(scope="session")
def void_dataset(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    """Class masks with very different numbers of void pixels, see helpers.void_masks."""
    return void_masks(tmp_path_factory.mktemp("void"))


@pytest.fixture(scope="session")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    """14 pairs of 8x8 colour images, random noise, 4 of them for validation."""
    folder, draw = tmp_path_factory.mktemp("coloured"), np.random.default_rng(8)
    for kind in ("input", "target"):
        (folder / kind).mkdir()
        for index in range(14):
            picture = draw.integers(0, 256, (SIZE, SIZE, 3), np.uint8) // np.array([1, 2, 4], np.uint8)
            Image.fromarray(picture).save(folder / kind / f"{index}.png")
    return multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=30, seed=1
    )


@pytest.fixture(scope="session", autouse=True)
def workers_end() -> Iterator[None]:
    """Ends the workers that tests lend each other when the tests end."""
    yield
    lending.end()


@pytest.fixture(scope="module")
def lent_workers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lets the program use a waiting worker process instead of starting one; autouse in `contract` and `backends`.

    A module about the processes themselves sets NEW_PROCESSES = True and gets new ones.
    """
    with nullcontext() if getattr(request.module, "NEW_PROCESSES", False) else lending.everywhere():
        yield


@pytest.fixture
def own_processes(lent_workers: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """own_processes(): from now on every training starts a new process, which is the newest; monkeypatch.undo() ends this."""

    def begin() -> None:
        monkeypatch.setattr("multiseg.worker.pool.start", Worker)

    return begin


@pytest.fixture
def load(backend: str, dataset: Any) -> Iterator[Loaded]:
    """load(**settings of a Job): a worker with that job's network in it, on one thread."""
    workers: list[Worker] = []

    def loaded(predict_only: bool = False, **settings: Any) -> Worker:
        resolved = Job(dataset=dataset, backend=backend, **{"seed": 3, "threads": 1, **settings}).resolve()
        spec = network_spec(resolved, dataset).to_json()
        worker = lend(backend, resolved.threads)
        workers.append(worker)
        worker.described = worker.call("load", spec={**spec, "solver": None} if predict_only else spec)
        return worker

    yield loaded
    for worker in workers:
        worker.close()


@pytest.fixture(scope="session")
def trained(dataset: Any, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """trained(backend): folder of a run of one epoch, shared by all tests that only read it."""
    folder = tmp_path_factory.mktemp("trained")

    def run(backend: str) -> Path:
        if not (folder / backend).exists():
            Job(dataset=dataset, backend=backend, epochs=1, seed=2, threads=1).train(folder / backend, progress=False)
        return folder / backend

    return run


@pytest.fixture
def fourth(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a backend in NumPy, installed for the test and the programs that it starts as a distribution on the path."""
    monkeypatch.syspath_prepend(FOURTH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(FOURTH), os.environ.get("PYTHONPATH")])))
    return "numpy"


class _Here:
    """Reads and writes files as a backend's worker process does, in this process."""

    def call(self, method: str, module: str, function: str, arguments: dict[str, Any]) -> Any:
        assert method == "read"
        return getattr(importlib.import_module(module), function)(**arguments)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the frameworks of conversions in this process."""
    monkeypatch.setattr("multiseg.conversion.frameworks.Frameworks._worker", lambda self, backend: _Here())
