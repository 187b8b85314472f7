"""Snapshots of a run: one folder each, with the framework's own files and the position. They are written atomically."""

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
from multiseg.files import read_text, sync, write_json
from multiseg.run.names import POSITION, SNAPSHOTS

NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?")
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
            return Position(**json.loads(read_text(self.path / POSITION)))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{self.path / POSITION}: cannot be read: {error}; remove this snapshot") from error


def snapshots(run: Path) -> list[Snapshot]:
    """Return the snapshots of a run folder, oldest first."""
    entries = sorted(
        (int(match[1]), int(match[2] or 0), path)
        for path in (run / SNAPSHOTS).glob("epoch-*")
        if (match := NAME.fullmatch(path.name))
    )
    return [Snapshot(Snapshot(epoch, path).position.epoch if step else epoch, path) for epoch, step, path in entries]


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
        write_json(part / POSITION, asdict(position))
        sync(part)
        part.rename(final)
        sync(folder)
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
    for leftover in (run / SNAPSHOTS).glob(".*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _cause(folder: Path, error: Exception) -> str:
    """Return why writing failed; a full disk is checked for here, as frameworks often do not report it."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < FULL:
        return f"the disk is full ({disk.f_bavail * disk.f_frsize >> 10} KiB left)"
    return f"{error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
