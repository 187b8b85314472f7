"""Temporary folders: removed by their owner, or by a later process if the owner was killed."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from multiseg.files import scratch
from multiseg.files.scratch import OWNER, TemporaryFolder, folder_until_the_end, sweep

OWN_AND_WAIT = """
import sys
from multiseg.files.scratch import TemporaryFolder
folder = TemporaryFolder()
(folder.path / "file").write_text("content")
print(folder.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def age(path: Path, seconds: float = 2 * scratch.NEW_SECONDS) -> None:
    status = (path / OWNER).stat()
    os.utime(path / OWNER, (status.st_atime - seconds, status.st_mtime - seconds))


def test_the_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(folder: Path) -> None:
    command = [sys.executable, "-c", OWN_AND_WAIT]
    options = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
        "env": {**os.environ, "TMPDIR": str(folder)},
    }
    processes = [subprocess.Popen(command, **options) for _ in range(2)]  # type: ignore[call-overload]
    killed, living = (Path(process.stdout.readline().strip()) for process in processes)
    for path in (killed, living):
        age(path)
    processes[0].kill()
    processes[0].wait(60)
    assert (killed / "file").exists()
    with TemporaryFolder() as new:
        assert sorted(folder.iterdir()) == sorted([living, new.path])
    processes[1].communicate("", timeout=60)
    assert list(folder.iterdir()) == []


def test_only_folders_of_multiseg_that_are_not_new_are_removed(folder: Path) -> None:
    foreign, link, new, other = (folder / f"multiseg-{name}" for name in ("foreign", "link", "new", "other"))
    for path in (foreign, new, other):
        path.mkdir()
    (new / OWNER).touch()
    (other / OWNER).symlink_to(foreign)
    link.symlink_to(foreign)
    sweep(folder)
    assert sorted(folder.iterdir()) == sorted([foreign, link, new, other])
    age(new)
    sweep(folder)
    assert sorted(folder.iterdir()) == sorted([foreign, link, other])


def test_a_folder_beside_the_files_that_it_is_for(folder: Path) -> None:
    (folder / ".out.left").mkdir()
    (folder / ".out.left" / OWNER).touch()
    age(folder / ".out.left")
    with TemporaryFolder(".out.", folder) as staging:
        (staging.path / "out").touch()
        assert staging.files() == [staging.path / "out"]
        assert list(folder.iterdir()) == [staging.path]
    assert list(folder.iterdir()) == []


def test_a_forked_child_removes_nothing(folder: Path) -> None:
    kept = folder_until_the_end("network")
    child = os.fork()
    if child == 0:
        scratch._until_the_end[-1].remove()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert kept.is_dir()
    scratch._until_the_end.pop().remove()
    assert not kept.exists()


def test_without_locks_folders_are_used_and_not_swept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lustre is often mounted without them."""

    def flock(*_: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    with TemporaryFolder() as first:
        age(first.path)
        with TemporaryFolder():
            assert first.path.is_dir()
    assert list(folder.iterdir()) == []
