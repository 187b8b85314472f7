"""Ctrl-C ends a command with one line and status 130, whatever it does at the moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# prints a line when Python itself has started: until then, and until the first module is imported, Ctrl-C is Python's
PROGRAM = "import sys; sys.argv[0] = 'multiseg'; print(flush=True); import multiseg.cli; multiseg.cli.main()"
# an interrupt while Python executes a generated class is reported as the end by the signal, which shells show as 130
INTERRUPTED = (130, -signal.SIGINT)


def interrupted(arguments: list[str], delay: float) -> tuple[str, int]:
    """Interrupt a command and its processes; return what it printed as errors, and its status."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    return process.communicate(timeout=60)[1], process.returncode


@pytest.mark.parametrize("delay", [0.1, 0.2, 0.3, 0.5, 0.8, 1.2])
def test_create_dataset(delay: float, images: Path, tmp_path: Path) -> None:
    folders = ["--input", str(images / "input"), "--target", str(images / "target")]
    errors, status = interrupted(["create-dataset", str(tmp_path / "out"), *folders], delay)
    if status == 0:  # it was quicker
        assert (tmp_path / "out").exists()
        return
    lines = [line for line in errors.splitlines() if line.strip()]
    assert status in INTERRUPTED and lines == ["multiseg: interrupted"], errors
    assert not (tmp_path / "out").exists()


def test_a_program_that_imports_the_command_keeps_its_handler() -> None:
    program = "import signal, multiseg.cli; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", program], check=True)
