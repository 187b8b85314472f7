"""Import of the package: nothing but the standard library; public names, the tree of errors, the list of backends."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import multiseg
from multiseg import backend as registry
from multiseg import errors
from multiseg.errors import BackendUnavailable, MultisegError

FRAMEWORKS = {"caffe", "torch", "tensorflow", "keras"}


def test_import_brings_in_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, json; before = set(sys.modules); import multiseg\n"
        "print(json.dumps([m for m in set(sys.modules) - before if '.' not in m]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert set(json.loads(done.stdout)) <= {"multiseg", *sys.stdlib_module_names}


def test_every_public_name_is_there_without_a_framework() -> None:
    code = (
        "import multiseg, sys\n"
        "for name in multiseg.__all__: getattr(multiseg, name)\n"
        "from multiseg import backend\n"
        "for name in backend.names(): backend.get(name)\n"
        f"assert not {FRAMEWORKS!r} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("module", "name", "current"),
    [
        ("multiseg.augmentation", "Augmentation", "multiseg.dataset.augmentation"),
        ("multiseg.outputs", "writing", "multiseg.inference.outputs"),
        ("multiseg.stopping", "Stop", "multiseg.training.signals"),
    ],
)
def test_documented_names_of_modules_that_moved_can_be_imported(module: str, name: str, current: str) -> None:
    assert getattr(import_module(module), name) is getattr(import_module(current), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Jobs'"):
        multiseg.Jobs  # noqa: B018


def test_all_errors_are_one_tree() -> None:
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert all(issubclass(kind, (MultisegError, Warning)) for kind in classes)
    assert issubclass(BackendUnavailable, ImportError)


def test_backends_are_the_same_in_entry_points_extras_tox_ci_and_docs() -> None:
    root = Path(__file__).parents[2]
    names = set(registry.names())
    tox, workflow = (root / "tox.ini").read_text(), (root / ".github/workflows/tests.yml").read_text()
    readme = (root / "README.md").read_text()
    for name in names:
        assert f"[testenv:{name}]" in tox
        assert f", {name}," in workflow
        assert f"`{name}`" in readme and registry.get(name).install in readme
        assert f"MULTISEG_TEST_BACKENDS = {','.join(sorted(names))}" in tox
