"""Run the programs of an installation and write their output to one log file."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from multiseg.errors import InstallError

ENDING_SECONDS = 10  # timeout for an interrupted program to end, before the next stronger signal


class Log:
    """A log file. The first program that runs overwrites it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mode = "w"

    def run(
        self,
        command: Sequence[str | Path],
        what: str,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> str:
        """Run a program and return its output; ``what`` names its purpose.

        Raises InstallError, with the first error line and the log's path, if it fails or does not exist.
        """
        words = [str(word) for word in command]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open(self._mode, encoding="utf-8", errors="replace") as log:
            self._mode = "a"
            log.write(f"$ {shlex.join(words)}\n")
            log.flush()
            lines: list[str] = []
            try:
                process = subprocess.Popen(
                    words,
                    cwd=cwd,
                    env={**os.environ, **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    encoding="utf-8",
                    errors="replace",
                )
            except OSError as error:
                log.write(f"{error}\n")
                raise InstallError(f"{what} failed: {words[0]}: {error.strerror}") from None
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    log.write(line)
                    lines.append(line)
                    if on_line is not None:
                        on_line(line)
                status = process.wait()
            except BaseException:
                # e.g. Ctrl-C. Wait for the program and its children, so that their folder can be removed
                for number in (
                    signal.SIGINT,
                    signal.SIGTERM,
                    signal.SIGKILL,
                ):  # a background process ignores SIGINT
                    with contextlib.suppress(PermissionError):  # sudo, which receives the terminal's signal itself
                        process.send_signal(number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.communicate(timeout=ENDING_SECONDS)
                        break
                raise
        if status != 0:
            raise InstallError(f"{what} failed: {error_line(lines)} (the full log is {self.path})")
        return "".join(lines)


def error_line(lines: Sequence[str]) -> str:
    """Return the line of a failed program's output that most likely states the cause: the first error, else the last line."""
    output = [line.strip() for line in lines if line.strip()]
    starts = ("E: ", "CMake Error", "error: ", "ERROR: ", "fatal error: ", "c++: fatal")
    for position, line in enumerate(output):
        if line.startswith(starts) or ": error: " in line or ": fatal error: " in line:
            # CMake prints the location on one line and the reason on the next
            return " ".join(output[position : position + 2]) if line.startswith("CMake Error") else line
    return output[-1] if output else "it printed nothing"
