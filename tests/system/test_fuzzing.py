"""Every reader answers a changed file with a value or an error of multiseg, in bounded time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
PATH = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
NIGHT = 100_000  # inputs of a night, over all groups
GROUPS = {"core": 1500, "runs": 1000, "torch": 500, "tensorflow": 300}


def fuzz(*arguments: str) -> str:
    command = [sys.executable, "-m", "helpers.fuzzing", *arguments]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": PATH}, stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    return done.stdout


def needing(group: str) -> Any:
    return pytest.param(group, marks=[pytest.mark.needs(group)] if group in ("torch", "tensorflow") else [])


@pytest.mark.parametrize("group", [needing(group) for group in GROUPS])
def test_changed_files_are_read_or_refused(group: str) -> None:
    text = fuzz("--group", group, "--inputs", str(GROUPS[group]))
    assert f"{group}: " in text and "0 neither" in text


@pytest.mark.nightly
@pytest.mark.needs("torch", "tensorflow")
def test_a_night_of_changed_files() -> None:
    text = fuzz("--inputs", str(NIGHT), "--seed", str(os.getpid()))
    assert text.count("0 neither") == len(GROUPS)


def test_a_fault_is_noticed() -> None:
    """An exception that is not multiseg's, an endless loop and too much memory are each reported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["KeyError:", "too", "MemoryError:", "value", "error"], done.stdout


PROGRAM = """
import resource
from pathlib import Path
from helpers.fuzzing import reader
from multiseg.errors import ModelError
reader.SECONDS = 0.2
def key(path): {}["x"]
def loop(path):
    while True: pass
def memory(path): return bytes(1 << 40)
def value(path): return 1
def refused(path): raise ModelError("no")
resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))
for read in (key, loop, memory, value, refused):
    found = reader.outcome(reader.Reader("x", "x", read), Path("x"), "1", b"")
    print(found if isinstance(found, str) else found.problem.split()[0])
"""
