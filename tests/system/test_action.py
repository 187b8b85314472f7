"""The steps of the GitHub Action, run as a runner would: in bash, with a summary file, in a user's project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import multiseg

ACTION: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "action.yml").read_text())
STEPS: dict[str, dict[str, Any]] = {step["name"]: step for step in ACTION["runs"]["steps"]}


def run_step(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a step as GitHub does for `shell: bash`, with the values of its inputs as environment."""
    step = STEPS[name]
    assert set(environment) == set(step.get("env", {}))
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], cwd=folder, capture_output=True, text=True,
        env={**os.environ, **environment, "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}, timeout=300,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's folder with the environment of this test in place of the one that the action creates."""
    (tmp_path / ".multiseg").mkdir()
    (tmp_path / ".multiseg/bin").symlink_to(Path(sys.executable).parent)
    return tmp_path


def test_a_run_is_compared_with_its_baseline(backends: list[str], dataset: multiseg.Dataset, project: Path) -> None:
    options = f"--dataset {dataset.path} --backend {backends[0]} --run runs/new --epochs 1 --seed 1 --batch-size 36"
    trained = run_step("Run", project, COMMAND=f"multiseg train {options}")
    assert trained.returncode == 0, trained.stderr
    passed = run_step("Compare", project, RUNS="runs/*", ARGUMENTS="--images 2 --require l1>=0")
    assert passed.returncode == 0, passed.stderr
    assert "| Run | Version |" in (project / "summary.md").read_text()
    assert (project / "multiseg.html").stat().st_size > 50_000
    failed = run_step("Compare", project, RUNS="runs/*", ARGUMENTS="--images 0 --require l1<0")
    assert failed.returncode == 1
    for file in ("summary.md", "multiseg.comment.md"):
        assert "required l1 < 0" in (project / file).read_text()


def test_a_command_that_fails_fails_the_step(project: Path) -> None:
    assert run_step("Run", project, COMMAND="false | cat; true").returncode != 0


def test_no_input_is_expanded_into_a_script() -> None:
    """A pull request controls some inputs: they reach the scripts as environment variables, not as code."""
    assert [name for name, step in STEPS.items() if "${{" in step.get("run", "")] == []
