"""The examples run as they stand, on few images."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import multiseg

EXAMPLES = Path(__file__).parents[2] / "examples"


def script(name: str, *arguments: object, cwd: Path) -> str:
    """Run an example and return what it printed."""
    command = [sys.executable, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tutorial(backends: list[str], tmp_path: Path) -> None:
    said = script("tutorial.py", backends[0], "--count", 40, "--epochs", 1, cwd=tmp_path)
    assert "'iou'" in said
    assert (tmp_path / "tutorial/grid.png").is_file()


@pytest.mark.nightly  # test_demo.py trains and compares all backends
def test_the_comparison_of_backends(backends: list[str], dataset: multiseg.Dataset, tmp_path: Path) -> None:
    available = [found.name for found in multiseg.backends() if found.available]
    said = script("compare_backends.py", dataset.path, tmp_path / "out", "--epochs", 1, cwd=tmp_path)
    assert "| Run | Version |" in said
    assert (tmp_path / "out/report.html").is_file()
    assert set(backends) <= set(available)
    assert all((tmp_path / "out" / name / "summary.json").is_file() for name in available)


@pytest.mark.nightly  # its steps are tested one by one elsewhere
@pytest.mark.needs("caffe", "torch")
def test_the_migration_from_caffe(tmp_path: Path) -> None:
    said = script("migrate_from_caffe.py", tmp_path / "out", "--count", 60, "--epochs", 1, cwd=tmp_path)
    assert "Caffe (fcn.prototxt) and PyTorch (fcn.py) agree with the float64 reference" in said
    assert {"fcn.py", "fcn.pt", "fcn.onnx", "parity.html", "grid-onnx.png"} <= {
        each.name for each in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("semantic_segmentation", slice(0, 1)),
        ("medical", slice(-1, None)),
        *(
            pytest.param(name, slice(None), marks=pytest.mark.nightly, id=f"{name}-all")
            for name in ("semantic_segmentation", "medical")
        ),
    ],
)
def test_class_segmentation(backends: list[str], tmp_path: Path, name: str, chosen: slice) -> None:
    """In one backend each; in all of them nightly."""
    backends = backends[chosen]
    options = [word for backend in backends for word in ("--backend", backend)]
    printed = script(f"{name}.py", tmp_path / "out", "--count", 20, "--epochs", 1, *options, cwd=tmp_path)
    out = tmp_path / "out"
    assert "| Run | Version |" in printed
    assert (out / "report.html").is_file()
    mask = np.asarray(Image.open(out / "images/target/00000000.png"))
    for backend in backends:
        run = multiseg.Run.open(out / backend)
        assert run.labels is not None
        assert run.labels.kind == "classes"
        assert 0 <= run.history[-1]["miou"] <= 1
        overlay = Image.open(out / f"{backend}-overlay.png")
        assert (overlay.mode, overlay.size) == ("RGB", (mask.shape[1], mask.shape[0]))
        if name == "semantic_segmentation":
            classes = np.asarray(Image.open(out / f"{backend}-classes.png"))
            assert classes.shape == mask.shape
            assert set(np.unique(classes)) <= set(range(7))


def test_the_notebook(backends: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(EXAMPLES / "tutorial.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are left out of the repository"
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += f"\ncount, epochs, backends = 40, 1, {backends[:1]!r}"
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "tutorial-notebook/report.html").is_file()
    assert (tmp_path / "tutorial-notebook/layers.html").is_file()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4
