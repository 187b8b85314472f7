"""Snapshots of a run: a folder each, with the framework's own files and the training's position. Whole, or not there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from multiseg.errors import MultisegError, RunError, setting
from multiseg.files import sync, write_json
from multiseg.run.names import POSITION, SNAPSHOTS

NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?")
FULL = 1 << 20  # bytes: a disk with less than that left is full


@dataclass
class Position:
    """Where a training is: steps done, rows written to the history, and what it has summed up since the last row.

    ``rate`` is the learning rate of the last step, as a snapshot has it.
    """

    iteration: int = 0
    epoch: float = 0
    rows: int = 0
    loss_sum: float = 0.0  # of each image's loss
    images: int = 0
    seconds: float = 0.0
    rate: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """Weights and solver state as they were after ``epoch`` epochs: whole, or with a part."""

    epoch: int | float
    path: Path

    @property
    def position(self) -> Position:
        """The training's position. Raises RunError where it cannot be read."""
        try:
            return Position(**json.loads((self.path / POSITION).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{self.path / POSITION}: cannot be read: {error}; remove this snapshot") from error


def snapshots(run: Path) -> list[Snapshot]:
    """The run folder's snapshots, oldest first."""
    found = sorted(
        (int(match[1]), int(match[2] or 0), path)
        for path in (run / SNAPSHOTS).glob("epoch-*")
        if (match := NAME.fullmatch(path.name))
    )
    return [Snapshot(Snapshot(epoch, path).position.epoch if step else epoch, path) for epoch, step, path in found]


@contextmanager
def writing(run: Path, position: Position, per_epoch: int) -> Iterator[Path]:
    """A folder to save into, which becomes the snapshot of ``position`` when the block ends well.

    Raises RunError naming the cause where it cannot be written; nothing of it stays then, and the others are untouched.
    """
    folder = run / SNAPSHOTS
    part = folder / f".part-{os.getpid()}"  # its own: a killed program's worker may still be at work on another
    epoch, step = divmod(position.iteration, per_epoch)
    final = folder / (f"epoch-{epoch:04}" + (f"-step-{step:05}" if step else ""))
    try:
        part.mkdir(parents=True)
        yield part
        write_json(part / POSITION, asdict(position))
        sync(part)
        part.rename(final)
        sync(folder)
    except (MultisegError, OSError) as error:
        kept = snapshots(run)
        go_on = f"the last one is {kept[-1].path.name}" if kept else "there is none yet"
        raise RunError(
            f"{final}: cannot be written: {_cause(folder, error)}; {go_on}, go on with {setting('resume')}"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove(snapshot: Snapshot) -> None:
    """Remove a snapshot: it is no longer one before the first of its files goes."""
    gone = snapshot.path.with_name(f".old-{snapshot.path.name}")
    snapshot.path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def clean(run: Path) -> None:
    """Remove what killed trainings left half written or half removed."""
    for left in (run / SNAPSHOTS).glob(".*"):
        shutil.rmtree(left, ignore_errors=True)


def _cause(folder: Path, error: Exception) -> str:
    """A framework may say little of why it cannot write."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < FULL:
        return f"the disk is full ({disk.f_bavail * disk.f_frsize >> 10} KiB left)"
    return f"{error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
