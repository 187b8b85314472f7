"""Install missing frameworks in the background, with the commands that their backends declare."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from multiseg.backend import Backend
from multiseg.errors import InstallError
from multiseg.worker import status

PROGRAM = "multiseg"


@dataclass(frozen=True)
class Installation:
    """A command that installs a framework, and its running process."""

    text: str
    process: subprocess.Popen[str]

    def wait(self) -> None:
        """Wait until the command ends. Raise InstallError, with its last line, if it fails."""
        output, _ = self.process.communicate()
        if self.process.returncode != 0:
            raise InstallError(
                f"`{self.text}` failed: {output.strip().splitlines()[-1] if output.strip() else 'no output'}"
            )


def start_installing(backends: Iterable[Backend]) -> dict[str, Installation]:
    """Start the installation of each missing framework that a command of multiseg installs; return them by backend."""
    missing = {backend.name for backend in status.backends() if not backend.available}
    commands = {backend.name: backend.install for backend in backends if backend.name in missing}
    return {name: _start(text) for name, text in commands.items() if shlex.split(text)[0] == PROGRAM}


def _start(text: str) -> Installation:
    command = [sys.executable, "-m", "multiseg.cli", *shlex.split(text)[1:]]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return Installation(text, process)
