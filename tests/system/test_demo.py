"""`multiseg demo`, small: everything the README's first command does, and what it says where a backend fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiseg import backend as registry
from multiseg.run.run import Run


def demo(folder: Path, backends: list[str], *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command on few images for one epoch."""
    command = [sys.executable, "-m", "multiseg.cli", "demo", "-o", str(folder), "-c", "60", "--epochs", "1", *options]
    for name in backends:
        command += ["--backend", name]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=600)


def test_trains_tests_and_compares_every_backend(backends: list[str], tmp_path: Path) -> None:
    done = demo(tmp_path / "demo", backends)
    assert done.returncode == 0, done.stderr
    assert "quicker than the tutorial's" in done.stdout and "multiseg train --dataset" in done.stdout
    page = (tmp_path / "demo/report.html").read_text()
    grid = np.asarray(Image.open(tmp_path / "demo/images/grid.png"))
    for name in backends:
        run = Run.open(tmp_path / "demo/runs" / name)
        assert run.title in done.stdout and str(run.environment["framework"]) in done.stdout
        assert f"{run.history[-1]['iou']:.4f}" in done.stdout
        assert run.title in page
        with Image.open(tmp_path / "demo/runs" / name / "grid.png") as out:
            assert out.size == grid.shape[::-1] == (320, 320)


def test_a_backend_that_fails_is_said_and_the_others_are_done(backends: list[str], tmp_path: Path) -> None:
    broken, *others = backends = list(dict.fromkeys((backends[0], backends[-1])))
    python = {registry.get(broken).python_variable: "/no/such/python"}
    done = demo(tmp_path / "demo", backends, "--json", **python)
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert [each["backend"] for each in said["runs"]] == others
    assert len(said["failures"]) == 1 and "/no/such/python" in said["failures"][0]
    assert bool(said["report"]) == bool(others)
    assert "/no/such/python" in done.stderr and "Traceback" not in done.stderr
    assert all((tmp_path / "demo/runs" / name / "summary.json").exists() for name in others)


def test_a_folder_in_use_is_refused(backends: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    done = demo(tmp_path, backends)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "exists already" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--dataset", "nowhere", "--run", "r"], "nowhere"),
        (["train", "--dataset", "nowhere", "--run", "r", "--backend", "mxnet"], "known are:"),
        (["test-one", "nowhere", "x.png", "-o", "y.png"], "is not a run folder"),
        (["compare", "nowhere", "-o", "page.html"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, arguments: list[str], words: str) -> None:
    command = [sys.executable, "-m", "multiseg.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
