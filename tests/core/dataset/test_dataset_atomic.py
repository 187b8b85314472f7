"""A dataset is there whole or not at all, whenever its creation is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg import Dataset
from multiseg.dataset.staging import staged_folder
from multiseg.errors import DatasetError

KILLS = int(os.environ.get("MULTISEG_TEST_KILLS", "8"))
SCRIPT = """
import sys, multiseg, multiseg.dataset.creation
multiseg.dataset.creation.MOST_PAIRS = 32  # chunks enough for a helper to take part
images, out = sys.argv[1:]
print("creating", flush=True)
multiseg.Dataset.create(out, input=images + "/input", target=images + "/target", seed=0, workers=2)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return multiseg.create_images(tmp_path_factory.mktemp("atomic") / "images", count=1500, seed=0)


def start(images: Path, out: Path, **options: Any) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(images), str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **options)
    assert process.stdout is not None
    assert process.stdout.readline() == "creating\n"
    return process


def test_killed_at_any_moment_it_leaves_no_dataset_or_the_whole(images: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    out = work / "out"
    began = time.monotonic()
    with start(images, out) as process:
        process.wait()
    whole = time.monotonic() - began
    expected = Dataset.open(out).content_hash
    numbers = random.Random(0)
    found_none = 0
    for _ in range(KILLS):
        if out.exists():
            shutil.rmtree(out)
        with start(images, out) as process:
            time.sleep(numbers.random() * whole)
            process.send_signal(signal.SIGKILL)
        try:
            dataset = Dataset.open(out)
        except DatasetError as error:
            found_none += 1
            assert "no such dataset folder" in str(error)
        else:
            assert dataset.content_hash == expected
            assert (len(dataset.train), len(dataset.val)) == (1350, 150)
    assert found_none > 0
    if not out.exists():
        with start(images, out) as process:
            assert process.wait() == 0
    assert [path.name for path in work.iterdir()] == ["out"]


def test_leftovers_are_cleaned_up_by_the_next_run(tmp_path: Path) -> None:
    left = tmp_path / ".out.unfinished"
    (left / "train_db").mkdir(parents=True)
    (left / "train_db" / "data.mdb").write_bytes(b"half")
    (left / "link").symlink_to(tmp_path)
    with staged_folder(tmp_path / "out") as staging:
        assert staging == left
        assert list(staging.iterdir()) == []
        (staging / "a").write_text("whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert (tmp_path / "out" / "a").read_text() == "whole"


def test_two_creations_of_one_folder_exclude_each_other(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "out") as staging:
        (staging / "a").write_text("first")
        with pytest.raises(DatasetError, match="is being created by another process"), staged_folder(tmp_path / "out"):
            pytest.fail("both are in")
        assert (staging / "a").exists()
    with pytest.raises(DatasetError, match="already exists"), staged_folder(tmp_path / "out"):
        pytest.fail("it exists")


def test_an_error_leaves_nothing_not_even_parents(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "a" / "b" / "out") as staging:
        (staging / "file").write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="already exists"), staged_folder(tmp_path / "out"):
        (tmp_path / "out").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def children(process: subprocess.Popen[str]) -> list[str]:
    """The helpers of a creation, as soon as it has some."""
    while not (found := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
        assert process.poll() is None, "it ended without helpers"
    return found


def is_asynchronous(fdinfo: Path) -> bool:
    with suppress(FileNotFoundError):  # closed by now
        return bool(int(fdinfo.read_text().split()[3], 8) & os.O_ASYNC)
    return False


def wait_for_the_start_of(pids: list[str]) -> None:
    """Wait until each helper has arranged its end, for which one of its files has the flag O_ASYNC (proc(5), fdinfo)."""
    end = time.monotonic() + 20
    while not all(any(is_asynchronous(file) for file in Path(f"/proc/{pid}/fdinfo").iterdir()) for pid in pids):
        assert time.monotonic() < end, "a helper does not begin"
        time.sleep(0.01)


def wait_for_the_end_of(pids: list[str]) -> None:
    end = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end, "a helper is left over"
        time.sleep(0.01)


def test_ctrl_c_leaves_nothing_and_no_processes(images: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with start(images, tmp_path / "work" / "out", stderr=subprocess.PIPE, start_new_session=True) as process:
        helpers = children(process)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert said.strip().endswith("KeyboardInterrupt")
    # Only the main process reports it. (Its traceback may be chained: pathlib.mkdir handles an exception while it waits.)
    assert said.count("KeyboardInterrupt\n") == 1
    assert list((tmp_path / "work").iterdir()) == []
    wait_for_the_end_of(helpers)


@pytest.mark.parametrize("stopped", [False, True])
def test_helpers_end_with_a_killed_parent(stopped: bool, images: Path, tmp_path: Path) -> None:
    with start(images, tmp_path / "out") as process:
        helpers = children(process)
        process.send_signal(signal.SIGSTOP)  # or it could end before its helpers are looked at
        if stopped:
            wait_for_the_start_of(helpers)
            for helper in helpers:
                os.kill(int(helper), signal.SIGSTOP)
        process.send_signal(signal.SIGKILL)
    wait_for_the_end_of(helpers)


def test_a_link_in_the_place_of_leftovers_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (tmp_path / ".out.unfinished").symlink_to(tmp_path / "precious")
    with pytest.raises(DatasetError, match="cannot be written"), staged_folder(tmp_path / "out"):
        pytest.fail("followed")
    assert (tmp_path / "precious" / "file").read_text() == "mine"
