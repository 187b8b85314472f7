"""Ctrl-C ends a command with one line and status 130, whatever it does at the moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multiseg.dataset.check import check_dataset

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
    _assert_whole_or_absent(tmp_path)


def _assert_whole_or_absent(folder: Path) -> None:
    """The new name exists only after all data are on disk; from then on, an interrupt finds a complete dataset."""
    left = [path.name for path in folder.iterdir()]
    if left:
        assert left == ["out"]
        assert check_dataset(folder / "out").problems == []


# interrupts itself at the rename that gives the new dataset its name
AT_RENAME = """
import os, pathlib, signal, sys

sys.argv[0] = "multiseg"
moment = sys.argv.pop(1)
rename = pathlib.Path.rename

def interrupted(path, final):
    if moment == "before":
        os.kill(os.getpid(), signal.SIGINT)
    rename(path, final)
    os.kill(os.getpid(), signal.SIGINT)

pathlib.Path.rename = interrupted
import multiseg.cli; multiseg.cli.main()
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_rename_of_a_dataset(moment: str, images: Path, tmp_path: Path) -> None:
    folders = ["--input", str(images / "input"), "--target", str(images / "target")]
    done = subprocess.run(
        [sys.executable, "-c", AT_RENAME, moment, "create-dataset", str(tmp_path / "out"), *folders],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.strip()) == (130, "multiseg: interrupted")
    assert (tmp_path / "out").exists() == (moment == "after")
    _assert_whole_or_absent(tmp_path)


# imported when Python starts: looks at every import of a module, before it happens
WATCH = """
import os, signal, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler and name.startswith("multiseg"):
            print("UNPROTECTED", name, flush=True)
        if name == os.environ.get("INTERRUPT"):
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Watch())
"""


@pytest.mark.parametrize("arguments", [["multiseg"], ["-m", "multiseg"], ["-m", "multiseg.cli"]])
def test_the_first_import_handles_interrupts(arguments: list[str], tmp_path: Path) -> None:
    """Until then only small modules are imported: those of the packages, and the one that handles interrupts."""
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "multiseg").write_text("import sys\nfrom multiseg.cli import main\nsys.exit(main())\n")
    places = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, *arguments[:-1], str(tmp_path / "multiseg") if len(arguments) == 1 else arguments[1]]

    def run(*options: str, interrupt: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options], env=environment | {"INTERRUPT": interrupt}, capture_output=True, text=True
        )

    done = run("--version", interrupt="")
    assert done.returncode == 0 and "multiseg, version" in done.stdout
    unprotected = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("UNPROTECTED")}
    main_module = {f"{arguments[1]}.__main__"} if len(arguments) > 1 else set()
    assert (
        {"multiseg.cli.starting"} <= unprotected <= {"multiseg", "multiseg.cli", "multiseg.cli.starting"} | main_module
    )
    for module in ["importlib.metadata", "multiseg.cli.notation", "multiseg.cli.model"]:
        done = run("describe", "--help", interrupt=module)
        assert (done.returncode, done.stderr.strip()) == (130, "multiseg: interrupted"), module


def test_a_program_that_imports_the_command_keeps_its_handler() -> None:
    program = "import signal, multiseg.cli; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    subprocess.run([sys.executable, "-c", program], check=True)
