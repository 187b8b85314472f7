"""Running the programs that an installation consists of, with all they say kept in one log file."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from multiseg.errors import InstallError

ENDING_SECONDS = 10  # for an interrupted program to end, before it is told more strongly


class Log:
    """A log file. It is begun anew when the first program runs."""

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
        """Run a program and return what it printed; ``what`` names its purpose.

        Raises InstallError, with the line that tells most and the log's path, where it fails or does not exist.
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
                # e.g. Ctrl-C. Wait for all that it started, so that their folder can be removed
                for number in (
                    signal.SIGINT,
                    signal.SIGTERM,
                    signal.SIGKILL,
                ):  # one started in the background ignores the first
                    with contextlib.suppress(PermissionError):  # of sudo, which has heard of it from the terminal
                        process.send_signal(number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.communicate(timeout=ENDING_SECONDS)
                        break
                raise
        if status != 0:
            raise InstallError(f"{what} failed: {telling_line(lines)} (the full log is {self.path})")
        return "".join(lines)


def telling_line(lines: Sequence[str]) -> str:
    """The line of a failed program's output that most likely says why: the first error, else the last line."""
    said = [line.strip() for line in lines if line.strip()]
    starts = ("E: ", "CMake Error", "error: ", "ERROR: ", "fatal error: ", "c++: fatal")
    for position, line in enumerate(said):
        if line.startswith(starts) or ": error: " in line or ": fatal error: " in line:
            # CMake gives the place on one line and the reason on the next
            return " ".join(said[position : position + 2]) if line.startswith("CMake Error") else line
    return said[-1] if said else "it said nothing"
