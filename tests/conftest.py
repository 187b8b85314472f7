"""Which backends the tests run over, and the small dataset that they share, which is that of multiseg's pytest plugin.

MULTISEG_TEST_BACKENDS lists the backends, by commas; unset means all three. A listed backend that will not load fails the
whole run: nothing is skipped for want of a framework.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import lending
import pytest

import multiseg

ALL = ("caffe", "tensorflow", "torch")
REQUIRED = [name for name in os.environ.get("MULTISEG_TEST_BACKENDS", ",".join(ALL)).split(",") if name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-core",
        action="store_true",
        help="Leave out the unit tests that need no backend: tox's environment `core` runs these.",
    )


def pytest_sessionstart(session: pytest.Session) -> None:
    # a shell that starts the tests in the background has them and all that they start ignore Ctrl-C, which they send
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unknown = sorted(set(REQUIRED) - set(ALL))
    if unknown:
        pytest.exit(f"MULTISEG_TEST_BACKENDS names {unknown[0]!r}; known are: {', '.join(ALL)}", 4)
    if not REQUIRED or session.config.option.collectonly:
        return
    problems = [status.problem for status in multiseg.backends() if status.name in REQUIRED and not status.available]
    if problems:
        pytest.exit("a required backend does not load: " + "; ".join(map(str, problems)), 4)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", REQUIRED)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    def wanted(item: pytest.Item) -> bool:
        needed = [set(mark.args) for mark in item.iter_markers("needs")]
        of_core = not needed and item.path.parent.name == "unit" and "backend" not in getattr(item, "fixturenames", ())
        return all(names <= set(REQUIRED) for names in needed) and not (of_core and config.getoption("--no-core"))

    left_out = [item for item in items if not wanted(item)]
    if left_out:
        items[:] = [item for item in items if wanted(item)]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def backends() -> list[str]:
    """All the backends that this run tests; a test that takes `backend` runs once over each."""
    return REQUIRED


@pytest.fixture(scope="session")
def images(multiseg_images: Path) -> Path:
    """120 pairs of 32x32 triangles and a 5x5 grid."""
    return multiseg_images


@pytest.fixture(scope="session")
def dataset(multiseg_dataset: multiseg.Dataset) -> multiseg.Dataset:
    """108 pairs for training, 12 for validation."""
    return multiseg_dataset


@pytest.fixture(scope="session", autouse=True)
def workers_end() -> Iterator[None]:
    """The workers that tests lend each other end with the tests."""
    yield
    lending.end()


@pytest.fixture(scope="module")
def lent_workers() -> Iterator[None]:
    """The program starts no process where one waits that it can use."""
    with lending.everywhere():
        yield
