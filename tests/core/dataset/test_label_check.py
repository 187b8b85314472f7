"""check-dataset on labels: their kind, the pixels of each class, other classes, and labels of one number."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import multiseg
from multiseg.cli import main
from multiseg.dataset.check import check_dataset
from multiseg.dataset.records import Datum, raw_datum
from multiseg.dataset.sheet import write_sheet

MASK = np.array([[0, 1, 2, 255], [2, 2, 1, 0]], np.uint8)


def create(root: Path, mask: np.ndarray = MASK, **options: Any) -> Path:
    for name in ("input", "target"):
        (root / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(mask).save(root / name / f"{number:02}.png")
    folders = {"input": root / "input", "target": root / "target"}
    return multiseg.Dataset.create(root / "out", seed=1, val_percent=50, **folders, **options).path


def check(path: Path, *options: str) -> Any:
    return CliRunner().invoke(main, ["check-dataset", str(path), *options])


def test_pixels_of_each_class(tmp_path: Path) -> None:
    path = create(tmp_path, labels="classes", classes=["road", "sky", "car", "bus"])
    result = check(path)
    assert result.exit_code == 0
    first, *lines = result.stdout.splitlines()
    assert first.startswith(f"{path}: no problems: 6 train_db/features")
    lines = lines[lines.index("labels: classes, ignored: 255") - 1 :]
    assert lines[1] == "labels: classes, ignored: 255"
    assert lines[2] == "    0 road: train 12 (25.00%), val 12 (25.00%)"
    assert lines[4] == "    2 car: train 18 (37.50%), val 18 (37.50%)"
    assert lines[5] == "    3 bus: train 0 (0.00%), val 0 (0.00%)"
    assert lines[6] == "  255 ignored: train 6 (12.50%), val 6 (12.50%)"
    facts = json.loads(check(path, "--json").stdout)
    assert facts["labels"]["names"] == ["road", "sky", "car", "bus"]
    assert facts["label_values"]["train_db"] == {"0": 12, "1": 12, "2": 18, "255": 6}


def test_other_classes_are_listed_up_to_ten_records(tmp_path: Path) -> None:
    path = create(tmp_path, labels="classes", classes=["road", "sky", "car"])
    content = json.loads((path / "dataset.json").read_text())
    content["labels"]["names"] = ["road", "sky"]
    (path / "dataset.json").write_text(json.dumps(content))
    result = check(path)
    assert result.exit_code == 1
    assert "train_db/labels: record 000000000 has 3 pixels of class 2, which is none of the 2 classes" in result.stdout
    assert result.stdout.count("which is none of") == 12  # six of each split: fewer than ten


@pytest.mark.filterwarnings("ignore::multiseg.errors.MultisegWarning")
def test_the_foreground_of_images(tmp_path: Path) -> None:
    path = create(tmp_path, np.array([[0, 255, 255, 255]], np.uint8))
    assert "labels: images, 0 to 255; foreground of binary masks: below 128, 25.0% of the values" in check(path).stdout


@pytest.mark.filterwarnings("ignore::multiseg.errors.MultisegWarning")
def test_the_foreground_of_class_numbers_is_not_known(tmp_path: Path) -> None:
    path = create(tmp_path)
    assert "labels: images, 0 to 255; foreground of binary masks: not known" in check(path).stdout


def write(path: Path, records: list[bytes]) -> None:
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=1 << 20) as environment, environment.begin(write=True) as written:
        for number, record in enumerate(records):
            written.put(f"{number:08}".encode(), record)


@pytest.mark.parametrize("in_records", [True, False])
def test_labels_of_one_number_are_no_problem(in_records: bool, tmp_path: Path) -> None:
    features = []
    for number in range(4):
        datum = Datum(channels=1, height=4, width=4, data=bytes(16), encoded=False)
        if in_records:
            datum.label = number % 2
        features.append(datum.SerializeToString())
    write(tmp_path / "train_db" / "features", features)
    if not in_records:
        labels = [raw_datum(np.full((1, 1, 1), number % 2, np.uint8)) for number in range(4)]
        write(tmp_path / "train_db" / "labels", labels)
    report = check_dataset(tmp_path)
    assert report.problems == ["train_db/mean.binaryproto: is missing"]
    assert report.label_checks["train_db"].to_json() == {"0": 2, "1": 2}
    assert report.labels.kind == ("classes" if in_records else "images")


def test_a_sheet_shows_the_colours_of_classes(tmp_path: Path) -> None:
    colours = [(10, 20, 30), (200, 0, 0), (0, 200, 0)]
    path = create(tmp_path, labels="classes", classes=["road", "sky", "car"], colours=colours)
    dataset = multiseg.Dataset.open(path)
    write_sheet(dataset, tmp_path / "sheet.png", 1)
    shown = {colour for _, colour in Image.open(tmp_path / "sheet.png").convert("RGB").getcolors(1 << 20) or ()}
    assert {*colours, (224, 224, 192)} <= shown
    write_sheet(dataset, tmp_path / "sheet.html", 1)
    page = " ".join((tmp_path / "sheet.html").read_text().split())
    for name, colour, numbers in (
        ("road", "10, 20, 30", "0, 25.00%"),
        ("sky", "200, 0, 0", "1, 25.00%"),
        ("car", "0, 200, 0", "2, 37.50%"),
        ("ignored", "224, 224, 192", "255, 12.50%"),
    ):
        assert f'<i style="background: rgb({colour})"></i>{name} <small>{numbers}</small>' in page


def pictures(page: Path) -> list[np.ndarray]:
    """Return the pictures of a sheet in HTML, in order."""
    encoded = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page.read_text())
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in encoded]


@pytest.mark.parametrize("names", [["background", "sky", "car"], ["road", "sky", "car"]])
def test_the_overlay_mixes_input_and_colours(tmp_path: Path, names: list[str]) -> None:
    colours = np.array([(10, 20, 30), (200, 0, 0), (0, 200, 0)], np.uint8)
    path = create(tmp_path, labels="classes", classes=names, colours=colours.tolist())
    write_sheet(multiseg.Dataset.open(path), tmp_path / "sheet.html", 1)
    _, target, overlay = pictures(tmp_path / "sheet.html")[:3]
    expected = np.vstack([colours, np.zeros((252, 3), np.uint8), [(224, 224, 192)]])[MASK]
    assert np.array_equal(target, expected)
    grey = np.repeat(MASK[..., np.newaxis], 3, axis=2)  # the inputs of these tests are the masks
    mixed = (grey.astype(float) + expected) / 2
    if names[0] == "background":
        mixed[MASK == 0] = 0
    assert abs(overlay.astype(float) - mixed).max() <= 1


def test_large_masks_are_not_smoothed(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 3, (300, 400)).astype(np.uint8)
    colours = [(10, 20, 30), (200, 0, 0), (0, 200, 0)]
    path = create(tmp_path, mask, labels="classes", colours=colours)
    write_sheet(multiseg.Dataset.open(path), tmp_path / "sheet.html", 1)
    target = pictures(tmp_path / "sheet.html")[1]
    assert target.shape == (144, 192, 3)
    assert {tuple(colour) for colour in target.reshape(-1, 3).tolist()} == set(colours)


def test_a_sheet_names_many_classes(tmp_path: Path) -> None:
    names = [f"class number {number}" for number in range(60)]
    path = create(tmp_path, labels="classes", classes=names)
    write_sheet(multiseg.Dataset.open(path), tmp_path / "sheet.html", 1)
    assert all(f"</i>{name} " in (tmp_path / "sheet.html").read_text() for name in names)
    with Image.open(write_sheet(multiseg.Dataset.open(path), tmp_path / "many.png", 1)) as many:
        few = create(tmp_path / "few", labels="classes", classes=names[:3])
        with Image.open(write_sheet(multiseg.Dataset.open(few), tmp_path / "few.png", 1)) as one:
            assert many.width == one.width
            assert many.height > one.height + 60


def test_records_with_other_classes_are_counted_beyond_ten(tmp_path: Path) -> None:
    for name in ("input", "target"):
        (tmp_path / name).mkdir()
        for number in range(13):
            Image.fromarray(MASK).save(tmp_path / name / f"{number:02}.png")
    folders = {"input": tmp_path / "input", "target": tmp_path / "target"}
    path = multiseg.Dataset.create(tmp_path / "out", val_percent=0, labels="classes", **folders).path
    content = json.loads((path / "dataset.json").read_text())
    content["labels"]["names"] = ["road", "sky"]
    (path / "dataset.json").write_text(json.dumps(content))
    report = check_dataset(path)
    assert [problem.split()[2] for problem in report.problems[:10]] == [f"{number:09}" for number in range(10)]
    assert report.problems[10:] == [
        "train_db/labels: 3 more records have other classes",
        "dataset.json: has changed since creation (SHA-256 differs)",
    ]
