"""Pages of watched runs in files, which are replaced while the runs train."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from multiseg.errors import MultisegError
from multiseg.files import write_text
from multiseg.watch.page import for_file, render
from multiseg.watch.pictures import Pictures
from multiseg.watch.watcher import Watcher

SECONDS = 2.0  # between two writes


class PageFile:
    """The page of watched runs in the file ``path``."""

    def __init__(self, path: Path, watcher: Watcher) -> None:
        self._path, self._watcher, self._pictures = path, watcher, Pictures()

    def write(self) -> bool:
        """Replace the page atomically, and return whether any of the runs trains or waits.

        Raises SettingsError if it cannot be a file.
        """
        state = self._watcher.state()
        write_text(self._path, render(for_file(state, self._pictures), live=False))
        return bool(state["active"])


@contextmanager
def written(path: Path | None, folders: Sequence[Path]) -> Iterator[None]:
    """Keep the page of some run folders up to date in a file while the block trains them; do nothing without ``path``.

    Raises SettingsError, before the block, if ``path`` cannot be a file. A later failure to write it does not affect the block.
    """
    if path is None:
        yield
        return
    page, ended = PageFile(path, Watcher(folders)), threading.Event()
    page.write()

    def follow_until_ended() -> None:
        while not ended.wait(SECONDS):
            with suppress(OSError, MultisegError):
                page.write()

    thread = threading.Thread(target=follow_until_ended, name="multiseg-page", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(OSError, MultisegError):
            page.write()


def follow(path: Path, watcher: Watcher, sleep: Callable[[float], None] = time.sleep) -> None:
    """Replace the page every SECONDS until all runs have ended."""
    page = PageFile(path, watcher)
    while page.write():
        sleep(SECONDS)
