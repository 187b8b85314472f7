"""The steps of the GitHub Action, run as a runner would: in bash, with a summary file, in a user's project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import multiseg
from helpers.action import STEPS, evaluated, run_script


def run_step(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a step with the values of its inputs."""
    assert set(environment) == set(STEPS[name].get("env", {}))
    return run_script(name, folder, environment, capture_output=True, timeout=300)


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


@pytest.mark.parametrize(
    ("name", "inputs", "runs"),
    [
        ("Restore Caffe from the cache", {"backends": "caffe torch", "caffe-wheels": ""}, True),
        ("Restore Caffe from the cache", {"backends": "caffe torch", "caffe-wheels": "wheels"}, False),
        ("Install Caffe", {"backends": "torch"}, False),
        ("Comment on the pull request", {"compare": "runs/*", "comment": "true"}, True),
        ("Comment on the pull request", {"compare": "runs/*", "comment": "false"}, False),
    ],
)
def test_steps_run_where_their_inputs_ask_for_them(name: str, inputs: dict[str, str], runs: bool) -> None:
    values = {f"inputs.{key}": value for key, value in inputs.items()} | {"github.event_name": "pull_request"}
    assert evaluated(STEPS[name]["if"], values) is runs
