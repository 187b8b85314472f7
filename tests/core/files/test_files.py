"""Files that every program can read: strict JSON, and names that are not UTF-8."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiseg import Dataset, files
from multiseg.files import json_text, write_json
from multiseg.jobs import read_jobs

NAME = os.fsdecode(b"caf\xe9 ds")  # Latin-1, which is not UTF-8
FILE = os.fsdecode(b"b\xe9")


def strict(text: str) -> object:
    def refuse(constant: str) -> object:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_numbers_that_are_not_finite_become_null() -> None:
    value = {"loss": float("inf"), "rows": [1.5, float("nan")], "pair": (float("-inf"), 2), "text": "é"}
    assert strict(json_text(value)) == {"loss": None, "rows": [1.5, None], "pair": [None, 2], "text": "é"}
    assert "\n" not in json_text(value, indent=None)


def test_names_that_are_not_utf_8_survive_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"path": NAME})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["path"] == NAME


def test_a_dataset_at_a_path_that_is_not_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / NAME
    for kind in ("input", "target"):
        (folder / kind).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (4, 4), np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{FILE}{number}.png")
    multiseg = [sys.executable, "-m", "multiseg.cli"]
    folders = ["--input", folder / "input", "--target", folder / "target", "--val-percent", "50", "--seed", "1"]
    for command in (
        ["create-dataset", folder / "dataset", *folders],
        ["create-dataset", folder / "other", *folders, "--json"],
        ["check-dataset", folder / "dataset"],
        ["check-dataset", folder / "dataset", "--json"],
        ["show-dataset", folder / "dataset", "-o", folder / "sheet.html"],
        ["show-dataset", folder / "dataset", "-o", folder / "sheet.png"],
    ):
        done = subprocess.run([*multiseg, *command], capture_output=True)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        assert b"Traceback" not in done.stderr
        if "--json" in command:
            assert json.loads(done.stdout)["path"].startswith(str(folder))
        else:
            assert os.fsencode(folder) in done.stdout
    assert Dataset.open(folder / "dataset").info["input"] == str(folder / "input")
    missing = subprocess.run([*multiseg, "check-dataset", folder / "none"], capture_output=True)
    assert missing.returncode == 2
    assert b"no such dataset folder" in missing.stderr and b"Traceback" not in missing.stderr


def test_a_file_of_jobs_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = 'runs = "runs"\r\n[[job]]\r\ndataset = "ds"\r\nbackend = "torch"\r\n'
    (tmp_path / "jobs.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(read_jobs(tmp_path / "jobs.toml").jobs) == ["torch"]


def test_the_last_lines_of_a_log_are_read_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\nsecond\n\xff\n")
    with path.open("rb") as file:
        assert files.tail(file.fileno(), 2) == ["second", "\ufffd"]
        assert files.tail(file.fileno(), 9, start=6) == ["second", "\ufffd"]
        assert files.tail(file.fileno(), 9, start=999) == []  # it was cut meanwhile
        path.write_bytes(b"x" * (1 << 20) + b"\nlast\n")
        lines = files.tail(file.fileno(), 2)
        assert lines[1] == "last" and len(lines[0]) < 1 << 16
    with path.open("wb") as file:
        assert files.tail(file.fileno(), 2) == []  # it cannot be read


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path, contents = tmp_path / "a", [bytes([65 + number]) * (1 << 20) for number in range(4)]

    def write(content: bytes) -> None:
        for _ in range(20):
            files.write_bytes(path, content, durable=False)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, contents))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_writer_that_stops_is_an_error_after_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.writing, "LOCK_SECONDS", 0.1)
    with (tmp_path / ".a.part").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OSError, match=r"another process is writing it: '.*/a'"):
            files.write_bytes(tmp_path / "a", b"x")
    files.write_bytes(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x" and not (tmp_path / ".a.part").exists()


def test_links_are_followed_for_users_files_only(tmp_path: Path) -> None:
    secret, link = tmp_path / "secret", tmp_path / "a.json"
    secret.write_text('"secret"')
    link.symlink_to(secret)
    assert files.read_json(link) == "secret"
    for read in (files.read_json, files.read_text, lambda path, follow: files.read_bytes(path, 3, follow)):
        with pytest.raises(OSError, match=r"is a symbolic link.*a\.json"):
            read(link, follow=False)
    with pytest.raises(OSError, match="is a symbolic link"):
        files.open_own(link, "a")
    (tmp_path / ".a.json.part").symlink_to(tmp_path / "elsewhere")
    files.write_json(link, "new", follow=False)
    assert secret.read_text() == '"secret"' and files.read_json(link, follow=False) == "new"
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "b").symlink_to(secret)
    files.write_text(tmp_path / "b", "changed")
    assert secret.read_text() == "changed" and (tmp_path / "b").is_symlink()
