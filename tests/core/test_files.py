"""Files that every program can read: strict JSON, and names that are not UTF-8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from multiseg import Dataset
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
