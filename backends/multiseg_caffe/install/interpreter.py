"""The Python interpreter that pycaffe is built for and installed into."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from multiseg.errors import InstallError

from .process import error_line

PROBE = """
import importlib.util, json, pathlib, sys, sysconfig
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": "%d.%d" % sys.version_info[:2],
    "platform": sysconfig.get_platform().replace("-", "_").replace(".", "_"),
    "headers": pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file(),
    "pip": importlib.util.find_spec("pip") is not None,
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """The properties of a Python interpreter that matter to a wheel."""

    path: Path
    implementation: str
    version: str
    platform: str
    headers: bool
    pip: bool

    @property
    def tag(self) -> str:
        """Return the wheel tag, e.g. ``cp311-linux_x86_64``."""
        return f"cp{self.version.replace('.', '')}-{self.platform}"

    @classmethod
    def probe(cls, name: str | Path) -> Interpreter:
        """Query an interpreter. Raise InstallError if it does not run, is not CPython, or has no pip."""
        executable = shutil.which(name)
        if executable is None:
            raise InstallError(f"{name}: no such Python interpreter")
        path = Path(executable).absolute()  # not resolved: a virtual environment is identified by its link
        try:
            answer = subprocess.run([path, "-c", PROBE], capture_output=True, text=True)
        except OSError as error:
            raise InstallError(f"{path}: not a working Python interpreter: {error.strerror}") from None
        if answer.returncode != 0:
            raise InstallError(f"{path}: not a working Python interpreter: {error_line(answer.stderr.splitlines())}")
        python = cls(path=path, **json.loads(answer.stdout))
        if python.implementation != "cpython":
            raise InstallError(f"{path}: pycaffe needs CPython, but this is {python.implementation}")
        if not python.pip:
            raise InstallError(
                f"{path}: this Python has no pip; use a virtual environment with pip, or try: {path} -m ensurepip"
            )
        return python

    def check_headers(self) -> None:
        """Raise InstallError if Python.h is missing."""
        if not self.headers:
            raise InstallError(
                f"{self.path}: the headers of Python {self.version} (Python.h) are missing; on Debian they are in the "
                f"package python{self.version}-dev"
            )
