"""Locks on open files, also where the file system has none."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from multiseg.dataset.location import reserved
from multiseg.dataset.staging import staged_folder
from multiseg.errors import RunError
from multiseg.files import try_lock, write_bytes
from multiseg.run.folder import RunFolder


def test_of_two_processes_one_acquires_the_lock(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w") as first, (tmp_path / "a").open("r") as second:
        assert try_lock(first.fileno()) == "acquired"
        assert try_lock(second.fileno()) == "held"
        first.close()
        assert try_lock(second.fileno()) == "acquired"


def test_one_training_at_a_time_uses_a_run_folder(tmp_path: Path) -> None:
    first, second = RunFolder.create(tmp_path / "run"), RunFolder(tmp_path / "run")
    with first.locked(), pytest.raises(RunError, match="another training is using this folder"), second.locked():
        pytest.fail("both have the lock")
    with second.locked():
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
def test_everything_works_on_a_file_system_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with (tmp_path / "a").open("w") as file:
        assert try_lock(file.fileno()) == "unsupported"
    write_bytes(tmp_path / "b", b"x")
    assert (tmp_path / "b").read_bytes() == b"x"
    with staged_folder(tmp_path / "dataset") as staging:
        (staging / "file").touch()
    assert (tmp_path / "dataset/file").exists()
    with reserved(tmp_path / "store", f"{'0' * 64}-none") as copy:
        assert copy is None
    with RunFolder.create(tmp_path / "run").locked():
        pass
