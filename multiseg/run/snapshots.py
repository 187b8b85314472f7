"""Snapshots of a run: one folder each, with the framework's own files and the position. They are written atomically."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from multiseg.errors import MultisegError, MultisegWarning, RunError, setting
from multiseg.files import read_json, rename, sync_one, sync_tree, write_json, write_text
from multiseg.run import sums
from multiseg.run.names import POSITION, SNAPSHOTS, SUMS
from multiseg.run.schemas import POSITION_VALUES
from multiseg.schema import problem

NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?")
_PARTLY = re.compile(rf"\.part-\d+(?:-{NAME.pattern})?|\.old-{NAME.pattern}")  # written, or removed, in part
FULL = 1 << 20  # bytes: a disk with less free space is considered full


@dataclass
class Position:
    """The position in a training: iterations completed, rows of the history, and sums since the last row.

    ``seconds`` is the training time since the last row; ``rate`` is the learning rate of the last step, set in snapshots only.
    """

    iteration: int = 0
    epoch: float = 0
    rows: int = 0
    loss_sum: float = 0.0  # over images
    images: int = 0
    seconds: float = 0.0
    rate: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """Weights and solver state after ``epoch`` epochs, which may be fractional."""

    epoch: int | float
    path: Path

    @property
    def position(self) -> Position:
        """The position in the training. Raises RunError if its file cannot be read."""
        try:
            values = read_json(self.path / POSITION, follow=False)
            difference = problem(values, POSITION_VALUES)
            if difference is not None:
                raise ValueError(difference)
            return Position(**{key: values.get(key) for key in POSITION_VALUES})
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path / POSITION}: cannot be read: {error}; remove this snapshot") from error

    def verify(self) -> None:
        """Raise RunError if the snapshot, the history up to it or the settings of the run differ from the sums in it.

        The message names the file and the newest older snapshot without damage. The files of the run's network, which all
        snapshots need, are verified, too. A snapshot that was made before there were sums is a MultisegWarning.
        """
        run = self.path.parent.parent
        sums.verify_model(run)
        try:
            sums.verify(self.path, run)
        except RunError as error:
            older = [Snapshot(0, path) for path in _folders(run) if _order(path) < _order(self.path)]
            good = next((snapshot for snapshot in reversed(older) if snapshot.is_whole()), None)
            fix = (
                f"the snapshot before it without damage is {good.path.name}: resume from there with "
                f"{setting('skip_damaged', True)}, or test with {setting('snapshot', good.position.epoch)}"
                if good
                else f"there is no snapshot before it without damage: {sums.COPY_AGAIN}"
            )
            raise RunError(f"{error.template}; {fix}") from error

    def is_whole(self) -> bool:
        """Return whether the snapshot agrees with its sums; a snapshot without sums does."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MultisegWarning)
                sums.verify(self.path, self.path.parent.parent)
        except RunError:
            return False
        return True


def _order(path: Path) -> tuple[int, int]:
    """Return epoch and step of a snapshot by the name of its folder."""
    match = NAME.fullmatch(path.name)
    assert match
    return int(match[1]), int(match[2] or 0)


def snapshots(run: Path) -> list[Snapshot]:
    """Return the snapshots of a run folder, oldest first."""
    return [Snapshot(_epoch(path), path) for path in _folders(run)]


def _epoch(path: Path) -> int | float:
    epoch, step = _order(path)
    if not step:
        return epoch
    try:
        return Snapshot(epoch, path).position.epoch
    except RunError:
        Snapshot(epoch, path).verify()  # its message names the snapshot to continue with
        raise


def _folders(run: Path) -> list[Path]:
    return sorted((path for path in (run / SNAPSHOTS).glob("epoch-*") if NAME.fullmatch(path.name)), key=_order)


def on_another_disk(run: Path) -> bool:
    """Return whether the folder of the snapshots is a link to a folder that holds nothing but snapshots, on a larger disk."""
    folder = run / SNAPSHOTS
    return (
        folder.is_symlink()
        and folder.is_dir()
        and all(NAME.fullmatch(path.name) or _PARTLY.fullmatch(path.name) for path in folder.iterdir())
    )


def remove_damaged(run: Path) -> bool:
    """Remove the damaged snapshots after the newest one without damage, with a MultisegWarning each; return whether any was.

    If all are damaged, they stay.
    """
    stored = [Snapshot(0, path) for path in _folders(run)]
    damaged = list(itertools.takewhile(lambda snapshot: not snapshot.is_whole(), reversed(stored)))
    if len(damaged) == len(stored):
        return False
    for snapshot in damaged:
        warnings.warn(MultisegWarning(f"{snapshot.path}: is damaged, and removed"), stacklevel=2)
        remove(snapshot)
    return bool(damaged)


@contextmanager
def writing(run: Path, position: Position, per_epoch: int) -> Iterator[Path]:
    """Yield a temporary folder to save into; it is renamed to the snapshot of ``position`` when the block succeeds.

    Raises RunError naming the cause if it cannot be written; the temporary folder is removed then, and the other snapshots are
    unchanged.
    """
    folder = run / SNAPSHOTS
    part = folder / f".part-{os.getpid()}"  # by process: the worker of a killed program may still write to its folder
    epoch, step = divmod(position.iteration, per_epoch)
    final = folder / (f"epoch-{epoch:04}" + (f"-step-{step:05}" if step else ""))
    try:
        part.mkdir(parents=True)
        yield part
        write_json(part / POSITION, asdict(position), sync_folder=False)
        with ThreadPoolExecutor(1) as thread:  # the disk and the processor work at the same time
            synced = thread.submit(sync_tree, part)
            text = sums.text_of(part, run, position.rows)
            synced.result()
        write_text(part / SUMS, text, sync_folder=False)
        sync_one(part)
        sync_one(run)  # the history up to the snapshot, which its sums contain
        rename(part, final)
    except (MultisegError, OSError) as error:
        stored = snapshots(run)
        last = f"the last snapshot is {stored[-1].path.name}" if stored else "there is no snapshot yet"
        raise RunError(
            f"{final}: cannot be written: {_cause(folder, error)}; {last}, continue with {setting('resume')}"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove(snapshot: Snapshot) -> None:
    """Remove a snapshot. It is renamed first, so that a partly removed folder is never taken for a snapshot."""
    renamed = snapshot.path.with_name(f".old-{snapshot.path.name}")
    snapshot.path.rename(renamed)
    shutil.rmtree(renamed, ignore_errors=True)


def clean(run: Path) -> None:
    """Remove partly written and partly removed snapshots of trainings that were killed."""
    for leftover in [path for path in (run / SNAPSHOTS).glob(".*") if _PARTLY.fullmatch(path.name)]:
        shutil.rmtree(leftover, ignore_errors=True)


def _cause(folder: Path, error: Exception) -> str:
    """Return why writing failed; a full disk is checked for here, as frameworks often do not report it."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < FULL:
        return f"the disk is full ({disk.f_bavail * disk.f_frsize >> 10} KiB left)"
    return f"{error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
