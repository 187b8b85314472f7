"""The dataset commands: what they print, and their exit status."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import multiseg
from multiseg.cli import main

COMMANDS = ["create-images", "create-dataset", "check-dataset", "show-dataset"]


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return multiseg.create_images(tmp_path_factory.mktemp("cli") / "images", count=30, seed=1)


@pytest.fixture(scope="module")
def dataset(images: Path) -> Path:
    out = images.parent / "dataset"
    result = run("create-dataset", out, "--input", images / "input", "--target", images / "target", "--seed", 3)
    assert result.exit_code == 0
    return out


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    for flag in ("-h", "--help"):
        result = run(command, flag)
        assert result.exit_code == 0
        assert result.output.startswith("Usage: ")
        assert "--json" in result.output


def test_create_images_of_a_scene(tmp_path: Path) -> None:
    result = run("create-images", tmp_path / "out", "--scene", "shapes", "-c", 5, "-g", 1, "--seed", 1)
    assert result.exit_code == 0
    assert result.stdout == (
        f"{tmp_path / 'out'}: 5 pairs of 64x64 images in input/ and target/, and grid.png, "
        "classes background, disc, ring, square, cross, triangle, star in classes.txt\n"
    )
    result = run("create-images", tmp_path / "wrong", "--scene", "cells", "-s", 8)
    assert result.exit_code != 0
    assert "--size 8: must be a whole number from 32" in result.stderr
    assert not (tmp_path / "wrong").exists()


def test_create_images(tmp_path: Path) -> None:
    result = run("create-images", tmp_path / "out", "-c", 5, "-s", 16, "-g", 2, "--seed", 1)
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'out'}: 5 pairs of 16x16 images in input/ and target/, and grid.png\n"
    assert result.stderr == ""
    assert len(list((tmp_path / "out" / "input").iterdir())) == 5
    result = run("create-images", tmp_path / "json", "-c", 1, "--json")
    assert json.loads(result.stdout) == {
        "path": str(tmp_path / "json"), "count": 1, "size": 32, "grid": 10, "seed": None,
        "scene": "triangles",
    }  # fmt: skip


def test_create_dataset_says_what_it_made(images: Path, tmp_path: Path) -> None:
    folders = ["--input", images / "input", "--target", images / "target"]
    result = run("create-dataset", tmp_path / "a", *folders, "--seed", 3, "--val-percent", 20)
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path / 'a'}: 24 pairs for training and 6 for validation, of shape 1x32x32, seed 3\n"
    options = ["--channels", "RGB", "--feature-encoding", "none", "--label-encoding", "png", "--workers", "2"]
    result = run("create-dataset", tmp_path / "b", *folders, *options, "--json")
    facts = json.loads(result.stdout)
    opened = multiseg.Dataset.open(tmp_path / "b")
    assert facts["content_hash"] == opened.content_hash
    assert facts["train"]["shape"] == [3, 32, 32] == list(opened.train.shape)
    assert (facts["feature_encoding"], facts["label_encoding"]) == ("none", "png")


def test_create_dataset_with_validation_folders(images: Path, tmp_path: Path) -> None:
    val = multiseg.create_images(tmp_path / "val", count=4, seed=2)
    folders = ["--input", images / "input", "--target", images / "target"]
    folders += ["--val-input", val / "input", "--val-target", val / "target"]
    result = run("create-dataset", tmp_path / "out", *folders)
    assert "30 pairs for training and 4 for validation" in result.stdout
    result = run("create-dataset", tmp_path / "no", *folders, "--val-percent", 10)
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--input", "nowhere", "--target", "nowhere"],
        ["--val-percent", "200"],
        ["--val-percent", "many"],
        ["--channels", "BGR"],
        ["--seed", "-3"],
        ["--workers", "0"],
        ["--labels", "classes", "--ignore", "9" * 5000],
    ],
)
def test_bad_input_exits_2_and_leaves_nothing(images: Path, tmp_path: Path, options: list[str]) -> None:
    folders = ["--input", images / "input", "--target", images / "target"]
    result = run("create-dataset", tmp_path / "out", *folders, *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_exits_2_with_one_line(dataset: Path, images: Path) -> None:
    result = run("create-dataset", dataset, "--input", images / "input", "--target", images / "target")
    assert result.exit_code == 2
    assert result.stderr == f"multiseg: {dataset}: already exists; remove it or choose another folder\n"
    result = run("create-images", dataset)
    assert result.exit_code == 2


def test_check_dataset(dataset: Path, tmp_path: Path) -> None:
    result = run("check-dataset", dataset)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{dataset}: no problems: 27 train_db/features, 27 train_db/labels, 3 val_db")
    facts = json.loads(run("check-dataset", dataset, "--json").stdout)
    assert facts["ok"] is True
    assert facts["content_hash"] == multiseg.Dataset.open(dataset).content_hash

    import shutil

    broken = shutil.copytree(dataset, tmp_path / "broken")
    (broken / "train_db/mean.binaryproto").unlink()
    result = run("check-dataset", broken)
    assert result.exit_code == 1
    assert result.stdout == f"train_db/mean.binaryproto: is missing\n{broken}: 1 problem\n"
    result = run("check-dataset", broken, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"] == ["train_db/mean.binaryproto: is missing"]
    result = run("check-dataset", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert result.stderr == f"multiseg: {tmp_path / 'nowhere'}: no such dataset folder\n"


def test_show_dataset(dataset: Path, tmp_path: Path) -> None:
    for name in ("sheet.html", "sheet.png"):
        result = run("show-dataset", dataset, "-o", tmp_path / name, "-c", 4)
        assert result.exit_code == 0
        assert (tmp_path / name).stat().st_size > 1000
    facts = json.loads(run("show-dataset", dataset, "-o", tmp_path / "a.png", "--json").stdout)
    assert facts == {"path": str(dataset), "out": str(tmp_path / "a.png")}
    assert run("show-dataset", dataset, "-o", tmp_path / "a.txt").exit_code == 2
    assert run("show-dataset", dataset).exit_code == 2


def test_progress_is_shown_on_a_terminal(images: Path, tmp_path: Path) -> None:
    """And only there: the other tests see nothing on stderr."""
    terminal, inside = pty.openpty()
    command = [sys.executable, "-c", "from multiseg.cli import main; main()", "create-dataset", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, "--input", str(images / "input"), "--target", str(images / "target")],
        stderr=inside,
        stdout=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    os.close(inside)
    seen = b""
    try:
        while part := os.read(terminal, 4096):
            seen += part
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0
    assert b"encoding" in seen
    assert b"100%" in seen
    os.close(terminal)
