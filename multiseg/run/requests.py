"""Requests to a training from another process, through a file in its run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from multiseg.errors import RunError
from multiseg.files import read_bytes, write_text
from multiseg.run.names import REQUEST
from multiseg.run.reading import is_run

Request = Literal["snapshot", "stop"]
REQUESTS: tuple[Request, ...] = get_args(Request)


def ask(folder: Path, request: Request) -> None:
    """Request a snapshot now, or a stop with a snapshot; the training reads it ten times a second, or after each longer step.

    Raises RunError if ``folder`` is not a run folder, or cannot be written.
    """
    if not is_run(folder):
        raise RunError(f"{folder}: no training has started here yet")
    try:
        write_text(folder / REQUEST, request, follow=False)
    except OSError as error:
        raise RunError(f"{folder / REQUEST}: cannot be written: {error.strerror}") from error


def take(folder: Path) -> Request | None:
    """Return the pending request and remove it; None if there is none. Unknown requests are removed and ignored."""
    path = folder / REQUEST
    try:
        text = read_bytes(path, 20, follow=False).decode("ascii", "replace").strip()
        path.unlink()
    except OSError:
        return None
    return next((request for request in REQUESTS if request == text), None)
