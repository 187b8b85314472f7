"""The program's copy of a run folder that a worker writes: at each moment one that training can go on from."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from multiseg.cluster import wire
from multiseg.files import sync, write_bytes
from multiseg.run import names, snapshots
from multiseg.run.folder import RunFolder
from multiseg.run.reading import is_run, read_history

SHARE = 10  # snapshots are fetched while the training goes on, but for no more than one part in this of the time
LAST = names.SUMMARY  # it says that a run is finished: what it sums up must be there before
IN_SNAPSHOTS = f"{names.SNAPSHOTS}/"

Read = Callable[[list[wire.Place]], list[bytes | None]]


class Mirror:
    """The copy in ``folder``, whose settings say what snapshots to ``keep``, by which ``metric`` the best is the best."""

    def __init__(self, folder: Path, keep: str, metric: str) -> None:
        self._folder, self._keep, self._metric = folder, keep, metric
        self._seen: dict[str, wire.Stamp] = {}
        self._due = 0.0  # when the next snapshot may be fetched

    def update(self, there: Mapping[str, wire.Stamp], read: Read, ended: bool) -> bool:
        """Fetch what has changed; snapshots when it is time, or when it has ``ended``. Whether all is here that was there."""
        found = {name: stamp for name, stamp in there.items() if self._seen.get(name) != stamp}
        folders = sorted({name.split("/")[1] for name in found if name.startswith(IN_SNAPSHOTS)})
        plain = [name for name in found if not name.startswith(IN_SNAPSHOTS) and name not in (LAST, names.HISTORY)]
        whole = all([self._file(name, found[name], read) for name in plain])
        if (names.HISTORY in found or folders) and not self._history(there.get(names.HISTORY), read):
            whole, folders = False, []
        if folders and not ended and time.monotonic() < self._due:
            whole = False
        elif folders:
            began = time.monotonic()
            for folder in folders:
                files = {name: stamp for name, stamp in found.items() if name.startswith(f"{IN_SNAPSHOTS}{folder}/")}
                whole = self._snapshot(folder, files, read) and whole
            self._due = time.monotonic() + SHARE * (time.monotonic() - began)
        if LAST in found and whole:
            whole = self._file(LAST, found[LAST], read)
        self._tidy()
        return whole

    def _history(self, stamp: wire.Stamp | None, read: Read) -> bool:
        """As it is now: it has the rows of all snapshots that were there before."""
        content = read([(names.HISTORY, *wire.ALL)])[0]
        if content is None:
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self._folder / names.HISTORY, content)
        if stamp is not None:
            self._seen[names.HISTORY] = stamp
        return True

    def _file(self, name: str, stamp: wire.Stamp, read: Read) -> bool:
        content = b""
        for places in wire.messages({name: stamp}):
            for piece in read(places):
                if piece is None:  # it has been replaced since: its stamp will have changed
                    return False
                content += piece
        path = wire.inside(self._folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content)
        self._seen[name] = stamp
        return True

    def _snapshot(self, name: str, files: Mapping[str, wire.Stamp], read: Read) -> bool:
        """Whole, or not at all; one that the worker removes meanwhile is not needed."""
        final = wire.inside(self._folder, f"{IN_SNAPSHOTS}{name}")
        if not final.exists():
            part = final.with_name(f".part-{os.getpid()}-{name}")
            try:
                for places in wire.messages(files):
                    pieces = read(places)
                    for (file, start, *_), piece in zip(places, pieces, strict=True):
                        if piece is None:
                            return False
                        wire.write(part, [(file.removeprefix(f"{IN_SNAPSHOTS}{name}/"), start, piece)])
                sync(part)
                part.rename(final)
                sync(final.parent)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        self._seen.update(files)
        return True

    def _tidy(self) -> None:
        """Keep the snapshots that the training would."""
        history = self._folder / names.HISTORY
        if is_run(self._folder) and history.exists():
            run = RunFolder(self._folder)
            run.metric, run.rows = self._metric, read_history(history)
            run.keep(self._keep)


def to_resume(folder: Path) -> list[str]:
    """Names of the files that a training needs to go on elsewhere: of the snapshots, the last one's."""
    there = wire.listing(folder)
    kept = snapshots.snapshots(folder)
    last = f"{IN_SNAPSHOTS}{kept[-1].path.name}/" if kept else None
    return [
        name
        for name in there
        if not name.startswith((IN_SNAPSHOTS, f"{names.TENSORBOARD}/")) or (last is not None and name.startswith(last))
    ]
