"""The pytest plugin: the backends to test with, a small dataset, and parity as an assertion.

Every pytest in an environment with multiseg loads it, so it imports nothing slow and only adds options and fixtures whose
names start with ``multiseg_``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # pytest imports this at every start
    from multiseg.dataset import Dataset
    from multiseg.parity import Parity

VARIABLE = "MULTISEG_TEST_BACKENDS"
OPTION = "--multiseg-backends"
INI = "multiseg_backends"

pytest.register_assert_rewrite("multiseg.testing.contract")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("multiseg")
    group.addoption(
        OPTION,
        metavar="NAMES",
        help=f"comma-separated backends to test with, which must be available; default: those in the variable {VARIABLE}, else "
        f"in the ini key {INI}, else all available ones",
    )
    group.addoption(
        "--multiseg-report",
        metavar="FOLDER",
        help="write an HTML page of each comparison by multiseg_parity to this folder",
    )
    parser.addini(INI, f"same as {OPTION}", default=None)


def required(config: pytest.Config) -> list[str] | None:
    """Return the names of the requested backends: from the option, the variable, or the ini key; None without a request.

    Raises pytest.UsageError for a backend that is not installed.
    """
    from multiseg import backend as registry

    for source, value in {
        OPTION: config.getoption(OPTION),
        VARIABLE: os.environ.get(VARIABLE),
        INI: config.getini(INI),
    }.items():
        if value is not None:
            names = list(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
            unknown = [name for name in names if name not in registry.names()]
            if unknown:
                known = ", ".join(registry.names()) or "none"
                raise pytest.UsageError(f"{source} names {unknown[0]!r}; installed backends are: {known}")
            return names
    return None


def problem(name: str) -> str | None:
    """Load a backend's framework; return why it cannot be used, or None."""
    from multiseg import backend as registry
    from multiseg.errors import BackendUnavailable
    from multiseg.worker import pool

    try:
        with pool.start(registry.get(name)):
            return None
    except BackendUnavailable as error:
        return str(error)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "multiseg_backend" in metafunc.fixturenames:
        from multiseg import backend as registry

        requested = required(metafunc.config)
        names = registry.names() if requested is None else requested
        metafunc.parametrize("multiseg_backend", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def _multiseg_problems() -> Callable[[str], str | None]:
    """Return a cached :func:`problem`, which loads each framework at most once per session."""
    from functools import cache

    return cache(problem)


@pytest.fixture(scope="session")
def multiseg_backends(pytestconfig: pytest.Config, _multiseg_problems: Callable[[str], str | None]) -> list[str]:
    """Return the names of the backends to test with: the requested ones, which must load; else the available ones."""
    from multiseg import backend as registry

    requested = required(pytestconfig)
    if requested is None:
        return [name for name in registry.names() if _multiseg_problems(name) is None]
    for name in requested:
        if reason := _multiseg_problems(name):
            pytest.fail(reason, pytrace=False)
    return requested


@pytest.fixture(scope="session")
def multiseg_backend(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, _multiseg_problems: Callable[[str], str | None]
) -> str:
    """Return a backend's name; the test runs once per backend. One that does not load fails if requested, else skips."""
    name: str = request.param
    if reason := _multiseg_problems(name):
        if required(pytestconfig) is None:
            pytest.skip(reason)
        pytest.fail(reason, pytrace=False)
    return name


@pytest.fixture(scope="session")
def multiseg_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tutorial's images: 120 pairs of 32x32 triangles in ``input`` and ``target``, and ``grid.png``."""
    from multiseg.dataset.scenes import create_images

    return create_images(tmp_path_factory.mktemp("multiseg") / "images", count=120, grid=5, seed=5)


@pytest.fixture(scope="session")
def multiseg_dataset(multiseg_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return a dataset of these images: 108 training and 12 validation pairs. A project can override it with its own dataset."""
    from multiseg.dataset import Dataset

    folder = tmp_path_factory.mktemp("multiseg") / "dataset"
    return Dataset.create(folder, input=multiseg_images / "input", target=multiseg_images / "target", seed=5)


@pytest.fixture
def multiseg_parity(request: pytest.FixtureRequest, pytestconfig: pytest.Config) -> Callable[..., Parity]:
    """multiseg_parity(model, *models, backends=None, weights=None, steps=20, against=None, ...): fail the test, with the first
    difference, if networks do not compute and train alike.

    Calls :func:`multiseg.check_parity` on ``multiseg_dataset``: one file on all ``multiseg_backends``, or several files, each on
    its own backend. With ``against``, a golden file (docs/parity.md#golden-files), the dataset is not used; without a model its
    network is exported to the backends. Further options are passed on. Anything that could not be compared also fails, unless
    ``complete=False``. Returns the Parity on success.
    """

    def check(
        *models: str | Path, backends: Sequence[str] | None = None, weights: str | Path | None = None,
        steps: int | None = None, complete: bool = True, against: str | Path | None = None, **options: Any,
    ) -> Parity:  # fmt: skip
        __tracebackhide__ = True
        from multiseg.parity import check_parity

        names = list(backends or ())
        if backends is None and len(models) < 2:  # several files each use their own backend
            names = request.getfixturevalue("multiseg_backends")
            if not names:
                pytest.skip(f"no backend is available (see `multiseg backends`); {OPTION} makes this a failure")
        dataset = None if against is not None else request.getfixturevalue("multiseg_dataset")
        parity = check_parity(
            dataset,
            backends=names or None,
            models=models or None,
            weights=weights,
            steps=steps,
            against=against,
            **options,
        )
        page = _report(pytestconfig, request.node.nodeid, parity)
        if not parity.ok:
            pytest.fail(f"{parity}{page}", pytrace=False)
        if complete and not parity.complete:
            pytest.fail(f"{parity}{page}\ncomplete=False accepts this", pytrace=False)
        return parity

    return check


def _report(config: pytest.Config, test: str, parity: Parity) -> str:
    """Write the page if one is requested, and return a line that names it."""
    folder = config.getoption("--multiseg-report")
    if not folder:
        return ""
    name = "".join(letter if letter.isalnum() else "-" for letter in test).strip("-")
    path = Path(folder) / f"{name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    parity.to_html(path)
    return f"\nfor details see {path}"
