"""Copy a run folder while a worker writes it, such that the copy can be resumed from at any time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from multiseg.cluster import wire
from multiseg.errors import RunError
from multiseg.files import make_folder, rename, sync_tree, write_bytes
from multiseg.run import names, snapshots
from multiseg.run.folder import RunFolder
from multiseg.run.reading import is_run, read_history, read_job
from multiseg.settings.metrics import DEFAULT

MOST_ATTEMPTS = 50  # to fetch the files of a training that has ended
PAUSE_SECONDS = 0.2  # between two of them
SHARE = 10  # fetching snapshots during training takes at most 1/SHARE of the time
LAST = names.SUMMARY  # fetched last, since it marks a run as finished
IN_SNAPSHOTS = f"{names.SNAPSHOTS}/"
IN_MODEL = f"{names.MODEL}/"

_NOT_TO_RESUME = (IN_SNAPSHOTS, f"{names.TENSORBOARD}/", f"{names.PICTURES}/")

Read = Callable[[list[wire.Place]], list[bytes | None]]


class Mirror:
    """The copy in ``folder``. ``keep`` states which snapshots to keep; the run's own metric determines the best one."""

    def __init__(self, folder: Path, keep: str) -> None:
        self._folder, self._keep = folder, keep
        self._seen: dict[str, wire.Stamp] = {}
        self._due = 0.0  # when the next snapshot may be fetched
        self.missing: list[str] = []  # files of the last listing that were changed while they were read

    def update(self, listing: Mapping[str, wire.Stamp], read: Read, ended: bool) -> bool:
        """Fetch the changed files of a listing; snapshots only at intervals, or if training has ``ended``.

        Returns whether the copy is complete. Raises RunError for a listing that is invalid, or that does not fit on the disk.
        """
        listing = wire.checked(listing)
        try:
            return self._update(listing, read, ended)
        finally:
            self.missing = [name for name, stamp in listing.items() if name != LAST and self._seen.get(name) != stamp]

    def _update(self, listing: Mapping[str, wire.Stamp], read: Read, ended: bool) -> bool:
        changed = {name: stamp for name, stamp in listing.items() if self._seen.get(name) != stamp}
        self._check_space(sum(size for size, _ in changed.values()))
        # a file beside the folders of snapshots is none of a training's
        folders = sorted(
            {name.split("/")[1] for name in changed if name.startswith(IN_SNAPSHOTS) and name.count("/") > 1}
        )
        plain = [name for name in changed if not name.startswith(IN_SNAPSHOTS) and name not in (LAST, names.HISTORY)]
        # job.json makes the folder a run, which is resumed with the model beside it; other files follow, because a folder with
        # these but without job.json is not taken for a run that has not begun
        first = [name for name in plain if name.split("/")[0] in names.BEFORE_JOB]
        complete = all([self._file(name, changed[name], read) for name in first])
        if names.JOB in changed and all(name in self._seen for name in listing if name.startswith(IN_MODEL)):
            complete = self._file(names.JOB, changed[names.JOB], read) and complete
        if names.JOB not in self._seen:
            # a training that failed before it began leaves nothing to copy
            return names.JOB not in listing and complete
        rest = [name for name in plain if name not in first and name != names.JOB]
        complete = all([self._file(name, changed[name], read) for name in rest]) and complete
        if (names.HISTORY in changed or folders) and not self._history(listing.get(names.HISTORY), read):
            complete, folders = False, []
        if folders and not ended and time.monotonic() < self._due:
            complete = False
        elif folders:
            started = time.monotonic()
            for folder in folders:
                files = {name: stamp for name, stamp in changed.items() if name.startswith(f"{IN_SNAPSHOTS}{folder}/")}
                complete = self._snapshot(folder, files, read) and complete
            self._due = time.monotonic() + SHARE * (time.monotonic() - started)
        if LAST in changed and complete:
            complete = self._file(LAST, changed[LAST], read)
        self._remove_old_snapshots()
        return complete

    def finish(self, update: Callable[[], bool], stopped: Callable[[], bool]) -> None:
        """Call ``update`` until the copy is complete, a bounded number of times, or once more after ``stopped``.

        Raises RunError that names the files which keep changing.
        """
        for _ in range(MOST_ATTEMPTS):
            last = stopped()
            if update():
                return
            if last:
                break
            time.sleep(PAUSE_SECONDS)
        files = ", ".join(self.missing[:5]) or "files"
        raise RunError(
            f"{self._folder}: {files} of the run kept changing in the worker after the training had ended, and could not be "
            "copied; end the program that writes them, and start the job again to complete the run"
        )

    def _check_space(self, size: int) -> None:
        """Raise RunError if this many bytes are more than the disk of the copy has free."""
        existing = next(path for path in (self._folder.absolute(), *self._folder.absolute().parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if size > free:
            raise RunError(
                f"{self._folder}: the files of the run in the worker have {size} bytes, and {free} are free here"
            )

    def _history(self, stamp: wire.Stamp | None, read: Read) -> bool:
        """Fetch the current history; it contains the rows of all snapshots in the listing."""
        content = read([(names.HISTORY, *wire.ALL)])[0]
        if content is None:
            return False
        make_folder(self._folder)
        write_bytes(self._folder / names.HISTORY, content, follow=False)
        if stamp is not None:
            self._seen[names.HISTORY] = stamp
        return True

    def _file(self, name: str, stamp: wire.Stamp, read: Read) -> bool:
        pieces: list[bytes] = []
        for places in wire.messages({name: stamp}):
            for place, piece in zip(places, read(places), strict=True):
                if piece is None or len(piece) != place[2]:  # replaced meanwhile: the next listing has another stamp
                    return False
                pieces.append(piece)
        content = b"".join(pieces)
        path = wire.inside(self._folder, name)
        make_folder(path.parent)
        sync = name in (names.JOB, LAST) or name.startswith(IN_MODEL)
        write_bytes(path, content, sync_folder=sync, follow=False)
        self._seen[name] = stamp
        return True

    def _snapshot(self, name: str, files: Mapping[str, wire.Stamp], read: Read) -> bool:
        """Fetch a snapshot atomically; return False if the worker has removed it meanwhile."""
        final = wire.inside(self._folder, f"{IN_SNAPSHOTS}{name}")
        if not final.exists():
            part = final.with_name(f".part-{os.getpid()}-{name}")
            make_folder(part.parent)
            try:
                for places in wire.messages(files):
                    pieces = read(places)
                    for (file, start, size, _), piece in zip(places, pieces, strict=True):
                        if piece is None or len(piece) != size:
                            return False
                        wire.write(part, [(file.removeprefix(f"{IN_SNAPSHOTS}{name}/"), start, piece)])
                sync_tree(part)
                rename(part, final)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        self._seen.update(files)
        return True

    def _remove_old_snapshots(self) -> None:
        """Remove the snapshots that training would remove."""
        history = self._folder / names.HISTORY
        if not (is_run(self._folder) and history.exists()):
            return
        try:
            metric = read_job(self._folder)["settings"].get("metric", DEFAULT)
        except RunError:
            return  # without its metric nobody knows which snapshot is the best
        run = RunFolder(self._folder)
        run.metric, run.rows = metric, read_history(history)
        run.keep(self._keep)


def to_resume(folder: Path) -> list[str]:
    """Return the names of the files needed to resume elsewhere; of the snapshots, only the last one's."""
    saved = snapshots.snapshots(folder)
    last = f"{IN_SNAPSHOTS}{saved[-1].path.name}/" if saved else None
    return [
        name
        for name in wire.listing(folder, names.SNAPSHOTS if snapshots.on_another_disk(folder) else "")
        if not name.startswith(_NOT_TO_RESUME) or (last is not None and name.startswith(last))
    ]
