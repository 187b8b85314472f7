"""Which backends the tests run over, and the small dataset that they share.

MULTISEG_TEST_BACKENDS lists the backends, by commas; unset means all three. A listed backend that will not load fails the
whole run: nothing is skipped for want of a framework.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import multiseg

ALL = ("caffe", "tensorflow", "torch")
REQUIRED = [name for name in os.environ.get("MULTISEG_TEST_BACKENDS", ",".join(ALL)).split(",") if name]


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
        return all(set(mark.args) <= set(REQUIRED) for mark in item.iter_markers("needs"))

    left_out = [item for item in items if not wanted(item)]
    if left_out:
        items[:] = [item for item in items if wanted(item)]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def backends() -> list[str]:
    """All the backends that this run tests; a test that takes `backend` runs once over each."""
    return REQUIRED


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pairs of 32x32 triangles and a 5x5 grid."""
    return multiseg.create_images(tmp_path_factory.mktemp("triangles") / "images", count=120, grid=5, seed=5)


@pytest.fixture(scope="session")
def dataset(images: Path, tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    """108 pairs for training, 12 for validation."""
    folder = tmp_path_factory.mktemp("triangles") / "dataset"
    return multiseg.Dataset.create(folder, input=images / "input", target=images / "target", seed=5)
