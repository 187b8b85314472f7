"""The pytest plugin: backends to test with, a small dataset, and parity as an assertion.

It is loaded wherever multiseg is installed, so it imports nothing that takes time and does nothing unless it is asked: it
has options, and fixtures whose names begin with ``multiseg_``.
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
        help=f"backends that must be there and are tested with, by commas; else those of the variable {VARIABLE}, of the "
        f"ini key {INI}, else all that are available",
    )
    group.addoption(
        "--multiseg-report", metavar="FOLDER", help="write a page (HTML) of each comparison by multiseg_parity there"
    )
    parser.addini(INI, f"as {OPTION}", default=None)


def required(config: pytest.Config) -> list[str] | None:
    """Names of the backends that were asked for: by the option, the variable, or the ini key; None where none was.

    Raises pytest.UsageError for one that is not installed.
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
    """Why a backend cannot be used, after really loading its framework; None where it can."""
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

        asked = required(metafunc.config)
        names = registry.names() if asked is None else asked
        metafunc.parametrize("multiseg_backend", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def _multiseg_problems() -> Callable[[str], str | None]:
    """Called with a backend's name: why it cannot be used, or None; each framework is loaded once to tell."""
    from functools import cache

    return cache(problem)


@pytest.fixture(scope="session")
def multiseg_backends(pytestconfig: pytest.Config, _multiseg_problems: Callable[[str], str | None]) -> list[str]:
    """Names of the backends to test with: those asked for, which fail the test where they do not load; else the available."""
    from multiseg import backend as registry

    asked = required(pytestconfig)
    if asked is None:
        return [name for name in registry.names() if _multiseg_problems(name) is None]
    for name in asked:
        if found := _multiseg_problems(name):
            pytest.fail(found, pytrace=False)
    return asked


@pytest.fixture(scope="session")
def multiseg_backend(
    request: pytest.FixtureRequest, pytestconfig: pytest.Config, _multiseg_problems: Callable[[str], str | None]
) -> str:
    """A backend's name: a test that takes it runs once over each; over one that does not load, it is skipped unless asked for."""
    name: str = request.param
    if found := _multiseg_problems(name):
        if required(pytestconfig) is None:
            pytest.skip(found)
        pytest.fail(found, pytrace=False)
    return name


@pytest.fixture(scope="session")
def multiseg_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tutorial's images: 120 pairs of 32x32 triangles in ``input`` and ``target``, and ``grid.png`` of 5x5."""
    from multiseg.dataset.triangles import create_images

    return create_images(tmp_path_factory.mktemp("multiseg") / "images", count=120, grid=5, seed=5)


@pytest.fixture(scope="session")
def multiseg_dataset(multiseg_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """These as a dataset: 108 pairs for training, 12 for validation. A project that has its own overrides this fixture."""
    from multiseg.dataset import Dataset

    folder = tmp_path_factory.mktemp("multiseg") / "dataset"
    return Dataset.create(folder, input=multiseg_images / "input", target=multiseg_images / "target", seed=5)


@pytest.fixture
def multiseg_parity(
    request: pytest.FixtureRequest, multiseg_dataset: Dataset, pytestconfig: pytest.Config
) -> Callable[..., Parity]:
    """multiseg_parity(model, *models, backends=None, weights=None, steps=20, ...): fails the test where networks do not compute
    and train alike, with the first difference in words.

    It is :func:`multiseg.check_parity` over ``multiseg_dataset``: of one file on ``multiseg_backends``, of several each on its
    own backend. Further options are that function's. What could not be compared fails as well, unless ``complete=False``.
    Returns the Parity where all is well.
    """

    def check(
        *models: str | Path, backends: Sequence[str] | None = None, weights: str | Path | None = None, steps: int = 20,
        complete: bool = True, **options: Any,
    ) -> Parity:  # fmt: skip
        __tracebackhide__ = True
        from multiseg.parity import check_parity

        names = list(backends or ())
        if backends is None and len(models) < 2:  # of several files each has its own
            names = request.getfixturevalue("multiseg_backends")
            if not names:
                pytest.skip(f"no backend is available, as `multiseg backends` tells; {OPTION} makes that a failure")
        parity = check_parity(
            multiseg_dataset, backends=names or None, models=models or None, weights=weights, steps=steps, **options
        )
        page = _report(pytestconfig, request.node.nodeid, parity)
        if not parity.ok:
            pytest.fail(f"{parity}{page}", pytrace=False)
        if complete and not parity.complete:
            pytest.fail(f"{parity}{page}\nwith complete=False that is enough", pytrace=False)
        return parity

    return check


def _report(config: pytest.Config, test: str, parity: Parity) -> str:
    """Write the page where one is asked for, and say where."""
    folder = config.getoption("--multiseg-report")
    if not folder:
        return ""
    name = "".join(letter if letter.isalnum() else "-" for letter in test).strip("-")
    path = Path(folder) / f"{name}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    parity.to_html(path)
    return f"\nmore is in {path}"
