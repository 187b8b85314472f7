"""The pytest plugin as users' tests meet it: in a folder of their own, by `python -m pytest`, over a backend in NumPy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

from multiseg.testing import plugin

FOURTH = Path(__file__).parents[2] / "fourth_backend"
NOWHERE = "/no/such/python"
# the frameworks, as where they are not installed: what is here is the same with and without them
WITHOUT = {f"MULTISEG_{name}_PYTHON": NOWHERE for name in ("CAFFE", "TORCH", "TENSORFLOW")}
PASSING = "def test_it():\n    assert True\n"


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The tests in a folder, with these variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MULTISEG_", "PYTEST_"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *arguments],
        cwd=folder, env={**kept, **WITHOUT, "PYTHONPATH": str(FOURTH), **environment}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def network(folder: Path, name: str = "network.json") -> Path:
    path = folder / name
    path.write_text('{"numpy network": {"dropout": 0}}')
    return path


# --- where nobody asks for it


def test_a_start_of_pytest_imports_next_to_nothing(tmp_path: Path) -> None:
    watch = (
        "import json, sys\n"
        "def pytest_unconfigure(config):\n"
        "    print('MODULES', json.dumps(sorted(sys.modules)))\n"
    )  # fmt: skip
    write(tmp_path, conftest=watch, test_it=PASSING)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    modules = json.loads(done.stdout.partition("MODULES")[2])
    ours = {name for name in modules if name.partition(".")[0].startswith("multiseg")}
    assert ours == {"multiseg", "multiseg.testing", "multiseg.testing.plugin"}
    assert not {"numpy", "lmdb", "PIL", "click", "rich", "torch", "tensorflow", "caffe"} & set(modules)


def test_a_project_that_does_not_use_it_is_left_alone(tmp_path: Path) -> None:
    """Not even a variable that names no backend is looked at; nothing of it is in what pytest prints."""
    write(tmp_path, test_it=PASSING)
    strict = ["--strict-config", "--strict-markers", "-W", "error"]
    done = run(tmp_path, *strict, MULTISEG_TEST_BACKENDS="nowhere")
    assert done.returncode == 0, done.stdout
    without = run(tmp_path, *strict, "-p", "no:multiseg")
    assert [line for line in done.stdout.splitlines() if " in " not in line] == [
        line for line in without.stdout.splitlines() if " in " not in line
    ]


# --- which backends

ASK = """
def test_all(multiseg_backends):
    print("FOUND", multiseg_backends)

def test_each(multiseg_backend):
    print("EACH", multiseg_backend)
"""


def test_without_a_word_the_available_backends_are_tested_and_the_others_skipped(tmp_path: Path) -> None:
    write(tmp_path, test_it=ASK)
    done = run(tmp_path)
    assert done.returncode == 0 and "FOUND ['numpy']" in done.stdout, done.stdout
    assert done.stdout.count("EACH numpy") == 1 and "3 skipped" in done.stdout
    assert f"MULTISEG_CAFFE_PYTHON={NOWHERE}: no such executable" in done.stdout


class Asked:
    """What a user asked for on the command line and in the ini file, as pytest's Config has it."""

    def __init__(self, option: str | None, ini: str | None) -> None:
        self.option, self.ini = option, ini

    def getoption(self, name: str) -> str | None:
        return {"--multiseg-backends": self.option}[name]

    def getini(self, name: str) -> str | None:
        return {"multiseg_backends": self.ini}[name]


def test_the_option_comes_before_the_variable_before_the_ini_key(fourth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(option: str | None, variable: str | None, ini: str | None) -> list[str] | None:
        monkeypatch.delenv("MULTISEG_TEST_BACKENDS", raising=False)
        if variable is not None:
            monkeypatch.setenv("MULTISEG_TEST_BACKENDS", variable)
        return plugin.required(cast(pytest.Config, Asked(option, ini)))

    assert names(fourth, "caffe", "torch") == [fourth]
    assert names(None, f"{fourth}, caffe,", "torch") == [fourth, "caffe"]
    assert names(None, None, "torch") == ["torch"]
    assert names(None, "", "torch") == []
    assert names(None, None, None) is None


def test_the_ini_key_is_read(tmp_path: Path) -> None:
    write(tmp_path, test_it=ASK)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmultiseg_backends = numpy\n")
    done = run(tmp_path)
    assert done.returncode == 0 and "FOUND ['numpy']" in done.stdout and "2 passed" in done.stdout, done.stdout


def test_a_required_backend_that_does_not_load_is_a_failure(tmp_path: Path) -> None:
    write(tmp_path, test_it=ASK)
    done = run(tmp_path, "--multiseg-backends=numpy,torch")
    assert done.returncode == 1 and "1 passed, 2 errors" in done.stdout, done.stdout
    assert f"MULTISEG_TORCH_PYTHON={NOWHERE}" in done.stdout


def test_an_unknown_backend_is_named_with_where_it_was_asked_for(tmp_path: Path) -> None:
    write(tmp_path, test_it=ASK)
    done = run(tmp_path, MULTISEG_TEST_BACKENDS="numpy,mxnet")
    assert done.returncode != 0
    said = "MULTISEG_TEST_BACKENDS names 'mxnet'; installed backends are: caffe, numpy, tensorflow, torch"
    assert said in done.stdout + done.stderr


# --- parity

DOCS = (Path(__file__).parents[3] / "docs" / "testing.md").read_text()
FIVE_LINES = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)[0]


def test_a_users_file_is_checked_in_five_lines(tmp_path: Path) -> None:
    """Those of docs/testing.md."""
    network(tmp_path, "my_network.py")
    write(tmp_path, test_it=FIVE_LINES)
    assert len(FIVE_LINES.strip().splitlines()) <= 5
    done = run(tmp_path, "--multiseg-backends=numpy", "--multiseg-report=pages")
    assert done.returncode == 0, done.stdout
    (page,) = (tmp_path / "pages").iterdir()
    assert "<html" in page.read_text().lower() and "my-network-is-the-same" in page.name


def faulty_packages(tmp_path: Path) -> str:
    """Return a PYTHONPATH with a copy of the backend that multiplies its output by 1.001."""
    packages = tmp_path / "packages" / "numpy_backend"
    packages.mkdir(parents=True)
    for file in (FOURTH / "numpy_backend").glob("*.*"):
        (packages / file.name).write_bytes(file.read_bytes())
    code = (packages / "network.py").read_text()
    right = "mixed * scale + offset"
    assert code.count(right) == 1
    (packages / "network.py").write_text(code.replace(right, right.replace("mixed", "1.001 * mixed")))
    return os.pathsep.join([str(packages.parent), str(FOURTH)])


def test_what_differs_is_the_tests_failure(tmp_path: Path) -> None:
    """A network that multiplies its output by 1.001 where nobody looks; in words, without a traceback."""
    path = faulty_packages(tmp_path)
    network(tmp_path, "my_network.py")
    write(tmp_path, test_it=FIVE_LINES)
    done = run(tmp_path, "--multiseg-backends=numpy", "--multiseg-report=pages", PYTHONPATH=path)
    assert done.returncode == 1, done.stdout
    assert "layer 'scale' is the first that differs" in done.stdout and "for details see pages/" in done.stdout
    assert "Traceback" not in done.stdout and "check_parity(" not in done.stdout


def test_a_golden_file_is_checked_without_a_dataset(tmp_path: Path) -> None:
    """Written by a test, and checked by one of a project that has no dataset: where all is right, and where it is not."""
    network(tmp_path)
    saving = "def test_it(multiseg_parity):\n    multiseg_parity('network.json', steps=2, save='golden.safetensors')\n"
    write(tmp_path, test_it=saving)
    done = run(tmp_path, "--multiseg-backends=numpy")
    assert done.returncode == 0, done.stdout
    none = (
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def multiseg_dataset():\n"
        "    raise AssertionError('no dataset is needed')\n"
    )
    checking = "def test_it(multiseg_parity):\n    multiseg_parity('network.json', against='golden.safetensors')\n"
    write(tmp_path, conftest=none, test_it=checking)
    done = run(tmp_path, "--multiseg-backends=numpy")
    assert done.returncode == 0, done.stdout
    done = run(tmp_path, "--multiseg-backends=numpy", PYTHONPATH=faulty_packages(tmp_path))
    assert done.returncode == 1 and "layer 'scale' is the first that differs" in done.stdout, done.stdout
    assert "Traceback" not in done.stdout


def test_a_project_brings_its_own_dataset(tmp_path: Path) -> None:
    network(tmp_path)
    own = (
        "import multiseg, pytest\n"
        "@pytest.fixture(scope='session')\n"
        "def multiseg_dataset(tmp_path_factory):\n"
        "    folder = tmp_path_factory.mktemp('own')\n"
        "    images = multiseg.create_images(folder / 'images', count=20, size=16, seed=1)\n"
        "    return multiseg.Dataset.create(folder / 'dataset', input=images / 'input', target=images / 'target', seed=1)\n"
    )
    test = (
        "def test_it(multiseg_parity, multiseg_dataset):\n"
        "    assert multiseg_dataset.train.shape[1:] == (16, 16)\n"
        "    assert multiseg_parity('network.json', steps=2).ok\n"
    )
    write(tmp_path, conftest=own, test_it=test)
    done = run(tmp_path, "--multiseg-backends=numpy")
    assert done.returncode == 0, done.stdout
