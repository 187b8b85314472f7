"""The sums of a new dataset's files, and their way to the disk, while the rest of the dataset is encoded."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from types import TracebackType

from multiseg.dataset.names import MEAN_FILE
from multiseg.files import sha256_of, sync_tree


class Finishing:
    """Compute the SHA-256 of files that are complete, and flush them to disk, in two threads. Use as a context manager.

    With ``concurrent`` this happens while the caller continues; otherwise it waits, so that one core is used.
    """

    def __init__(self, concurrent: bool) -> None:
        self._concurrent = concurrent
        self._stop = Event()
        self._threads = ThreadPoolExecutor(2)
        self._sums: dict[Path, Future[str]] = {}
        self._others: list[Future[None]] = []

    def add(self, folder: Path) -> None:
        """Add a folder whose files, those of a split, do not change any more."""
        paths = sorted([*folder.glob("*/data.mdb"), *folder.glob(MEAN_FILE)])
        self._sums |= {path: self._threads.submit(sha256_of, path, self._stop) for path in paths}
        self._others.append(self._threads.submit(sync_tree, folder))
        if not self._concurrent:
            wait(self._sums.values())
            wait(self._others)

    def sums(self, folder: Path) -> dict[str, str]:
        """Return the sums by the names of the files in ``folder``, when all is done. Raises OSError."""
        for other in self._others:
            other.result()
        return {path.relative_to(folder).as_posix(): self._sums[path].result() for path in sorted(self._sums)}

    def __enter__(self) -> Finishing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._threads.shutdown(cancel_futures=True)
