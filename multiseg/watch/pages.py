"""Pages of watched runs in files, which are replaced while the runs train."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from multiseg.files import write_text
from multiseg.watch.page import render, with_pictures
from multiseg.watch.watcher import Watcher

SECONDS = 2.0  # between two writes


def write_page(path: Path, watcher: Watcher) -> bool:
    """Replace the page at ``path`` atomically, and return whether any of the runs trains or waits.

    Raises SettingsError if it cannot be a file.
    """
    state = watcher.state()
    write_text(path, render(with_pictures(state, watcher), live=False))
    return bool(state["active"])


def follow(path: Path, watcher: Watcher, sleep: Callable[[float], None] = time.sleep) -> None:
    """Replace the page every SECONDS until all runs have ended."""
    while write_page(path, watcher):
        sleep(SECONDS)
