"""The wheel, built from the source distribution, and the editable install, each in a fresh environment without any framework."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources: building writes beside them, where other tests read."""
    folder = tmp_path_factory.mktemp("source") / "multiseg"
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, folder, ignore=hidden)
    return folder


@pytest.fixture(scope="session")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the source distribution, as for an upload."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, source], check=True, stdout=subprocess.DEVNULL)
    (built,) = folder.glob("multiseg-*.whl")
    return built


@pytest.fixture(scope="session", params=["wheel", "editable"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's Python with multiseg in it."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(
        folder / "env"
    )  # installed into by the pip of this environment: its own would take longer than multiseg
    python = folder / "env/bin/python"
    what = [request.getfixturevalue("wheel")] if request.param == "wheel" else ["-e", request.getfixturevalue("source")]
    pip = [sys.executable, "-m", "pip", "--python", python]
    subprocess.run([*pip, "install", "-q", "-c", ROOT / "constraints.txt", *what], check=True)
    return python


def out(python: Path, *arguments: str) -> str:
    """What a command prints, run away from the checkout."""
    return subprocess.run([python, *arguments], cwd=python.parent, check=True, capture_output=True, text=True).stdout


def test_no_source_root_is_importable(python: Path) -> None:
    code = "import importlib.util as u; print([u.find_spec(name) for name in ('backends', 'models', 'tests', 'benchmarks')])"
    assert out(python, "-c", code).strip() == "[None, None, None, None]"


def test_backends_resolve_and_their_files_are_there(python: Path) -> None:
    code = (
        "import json; from multiseg import backend; "
        "print(json.dumps({n: backend.get(n).default_model_path.is_file() for n in backend.names()}))"
    )
    assert json.loads(out(python, "-c", code)) == {"caffe": True, "tensorflow": True, "torch": True}


def test_commands_run_and_missing_frameworks_are_said(python: Path) -> None:
    command = str(python.parent / "multiseg")
    commands = subprocess.run([command, "--help"], check=True, capture_output=True, text=True, cwd=python.parent).stdout
    for name in ("create-images", "train", "compare", "demo", "install-caffe"):
        assert name in commands
        subprocess.run([command, name, "--help"], check=True, capture_output=True, cwd=python.parent)
    found = subprocess.run(
        [command, "backends", "--json"], check=True, capture_output=True, text=True, cwd=python.parent
    )
    for status in json.loads(found.stdout):
        assert not status["available"]
        assert status["install"] in status["problem"]


def test_images_and_datasets_work_without_a_framework(python: Path, tmp_path: Path) -> None:
    code = (
        "import multiseg, sys\n"
        "if __name__ == '__main__':\n"
        "    multiseg.create_images('images', count=20, grid=2, seed=1)\n"
        "    print(len(multiseg.Dataset.create('dataset', input='images/input', target='images/target').train))\n"
    )
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([python, "script.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "18"


def test_the_wheel_holds_all_data_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("multiseg", "backends/multiseg_caffe", "backends/multiseg_torch", "models/multiseg_models"):
        for path in (ROOT / package).rglob("*"):
            inside = path.relative_to(ROOT / package).as_posix()
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{Path(package).name}/{inside}" in names
    assert all(name.split("/")[0].startswith("multiseg") for name in names)
