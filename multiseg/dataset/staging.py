"""Create a folder atomically."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from multiseg.errors import DatasetError
from multiseg.files import make_folder, remove_empty, rename, sync_tree, try_lock


@contextmanager
def staged_folder(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a staging folder beside ``destination``, and rename it to ``destination`` when the block succeeds.

    The rename is atomic and happens after all data are on disk, so that a killed process or a power failure leaves the
    complete folder or none. An unfinished folder of a killed process is removed by the next one that creates the same
    destination; a lock, released when its process ends, distinguishes it from one in use. Raises DatasetError if the
    destination exists, is being created by another process, cannot be written, or the disk is full.
    """
    target = Path.cwd() / destination
    _refuse_existing(target)
    created = _make_parents(target.parent)
    staging = target.parent / f".{target.name}.unfinished"
    try:
        lock = _claim(staging, target)
    except BaseException:
        remove_empty(created)
        raise
    try:
        yield staging
        sync_tree(staging)
        _refuse_existing(target)
        rename(staging, target)
    except BaseException as error:
        shutil.rmtree(staging, ignore_errors=True)
        remove_empty(created)
        if isinstance(error, OSError):
            raise _explain(error, target) from error
        raise
    finally:
        os.close(lock)


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise DatasetError(f"{target}: already exists; remove it or choose another folder")


def _explain(error: OSError, target: Path, failed: str = "written") -> DatasetError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DatasetError(f"{target}: the disk is full; free some space or choose another folder")
    return DatasetError(f"{target}: cannot be {failed}: {error.strerror or error}")


def _make_parents(folder: Path) -> list[Path]:
    """Create missing parents and return those created, innermost first."""
    try:
        return make_folder(folder)
    except OSError as error:
        raise _explain(error, folder, "created") from error


def _claim(staging: Path, target: Path) -> int:
    """Create ``staging`` empty and locked; return the descriptor that holds the lock."""
    while True:
        try:
            staging.mkdir(exist_ok=True)
            descriptor = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # another process finished or gave up between the two calls
            _refuse_existing(target)
            continue
        except OSError as error:
            raise _explain(error, target) from error
        if try_lock(descriptor) == "held":
            os.close(descriptor)
            raise DatasetError(f"{target}: is being created by another process; wait for it to end")
        try:
            still_ours = os.path.samestat(os.fstat(descriptor), staging.stat())
        except FileNotFoundError:
            still_ours = False
        if still_ours:
            break
        os.close(descriptor)  # the previous owner of the lock renamed or removed the folder
        _refuse_existing(target)
    for leftover in list(staging.iterdir()):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
    return descriptor
