"""The page of many runs in a file keeps its size: fewer points of a curve, smaller pictures, fewer lines of logs."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg.watch.pages import PageFile
from multiseg.watch.watcher import Watcher

LIMIT = 8_000_000


@pytest.fixture
def run(fourth: str, dataset: Any, tmp_path: Path) -> Path:
    job = multiseg.Job(dataset=dataset, backend=fourth, epochs=1, seed=1)
    return job.train(tmp_path / "run", progress=False).path


def page_state(runs: Path) -> tuple[int, dict[str, Any]]:
    """Write the page; return its size, and the data that its script reads."""
    path = runs.with_suffix(".html")
    PageFile(path, Watcher([runs])).write()
    text = path.read_text()
    data = re.search(r'id="state-data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    return len(text.encode()), json.loads(data[1])


def write_history(run: Path, rows: int) -> None:
    with (run / "history.csv").open(newline="") as file:
        known = list(csv.DictReader(file))[-1]
    with (run / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(known))
        writer.writeheader()
        for epoch in range(rows):
            writer.writerow(
                {**known, "epoch": epoch, "iteration": epoch, "val_loss": 1 / (epoch + 1) ** 1.37, "seconds": 2}
            )


def noise(side: int, seed: int) -> bytes:
    """A picture that cannot be compressed: no photograph takes more bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_long_histories_keep_their_first_and_last_row(run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for number in range(7):
        shutil.copytree(run, runs / str(number))
        write_history(runs / str(number), 20_000 if number else 3)
    size, state = page_state(runs)
    assert size < LIMIT
    short, long = state["curves"]["runs"][:2]
    assert short["epoch"] == [0, 1, 2]
    assert long["epoch"][0] == 0 and long["epoch"][-1] == 19_999
    assert len(set(np.diff(long["epoch"][:-1]))) == 1
    assert long["values"]["val_loss"] == pytest.approx([1 / (epoch + 1) ** 1.37 for epoch in long["epoch"]], rel=1e-5)
    assert long["seconds"][-1] == 40_000  # of all rows, also those that are left out


def test_pictures_of_many_runs_are_reduced_and_common_ones_stored_once(run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for number in range(30):
        copy = runs / f"{number:02}"
        shutil.copytree(run, copy)
        (copy / "worker.log").write_text("x" * 499 + "\n" + "y" * 499 + "\n")
        for at in range(4):
            (copy / f"pictures/{at}-input.png").write_bytes(noise(256, at))
            (copy / f"pictures/{at}-output.png").write_bytes(noise(256, 100 + 4 * number + at))
    size, state = page_state(runs)
    assert size < LIMIT
    found = [state["pictures"][one["id"]] for one in state["runs"]]
    assert len(found) == 30
    assert len({files["0-input.png"] for files in found}) == 1
    assert len({files["0-output.png"] for files in found}) == 30
    sides = {
        Image.open(io.BytesIO(base64.b64decode(state["images"][files[f"{at}-output.png"]].split(",")[1]))).size
        for files in found
        for at in range(4)
    }
    assert len(sides) == 1 and 32 <= max(next(iter(sides))) < 256
    assert all(one["log"] == ["x" * 499, "y" * 499] for one in state["runs"])


def test_what_is_no_picture_is_left_blank(run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(run, runs / "a")
    (runs / "a/pictures/0-output.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (runs / "a/pictures/1-output.png").write_bytes(noise(4, 1)[:40])
    _, state = page_state(runs)
    files = state["pictures"][state["runs"][0]["id"]]
    assert [state["images"][files[f"{at}-output.png"]] for at in (0, 1)] == ["data:,", "data:,"]
    assert state["images"][files["2-output.png"]].startswith("data:image/")


def test_recorded_classes_need_not_be_those_of_the_labels(run: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name, classes in (("a", ["road", "sky"]), ("b", ["sky", "tree"])):
        shutil.copytree(run, runs / name)
        events = [json.loads(line) for line in (runs / name / "events.jsonl").read_text().splitlines()]
        for event in events:
            if event["event"] == "epoch":
                event["class_iou"] = dict.fromkeys(classes, 0.25)
        (runs / name / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    _, state = page_state(runs)
    assert state["curves"]["classes"]["names"] == ["road", "sky", "tree"]
    assert [one["classes"][-1] for one in state["curves"]["runs"]] == [[0.25, 0.25, None], [None, 0.25, 0.25]]
