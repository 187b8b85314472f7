"""check-dataset finds what is wrong; show-dataset shows the pairs."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pytest
from PIL import Image

import multiseg
from helpers.dataset_wire import chunk, encoded, mean, number, raw, read_lmdb, write_job, write_lmdb
from helpers.exhaustive import unnoticed
from multiseg import Dataset
from multiseg.dataset.check import check_dataset
from multiseg.dataset.sheet import write_sheet
from multiseg.errors import DatasetError, ImageError, SettingsError

IMAGES = [np.full((4, 6), value, np.uint8) for value in range(20)]


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("created")
    multiseg.create_images(folder / "images", count=40, seed=1)
    return Dataset.create(
        folder / "out", input=folder / "images/input", target=folder / "images/target", seed=1
    ).path  # fmt: skip


@pytest.fixture
def ours(created: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(created, tmp_path / "ours"))


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    folder = write_job(tmp_path / "digits", [raw(image) for image in IMAGES], [raw(image) for image in IMAGES], val=4)
    (folder / "train_db/mean.binaryproto").write_bytes(mean(IMAGES[9]))
    return folder


def rewrite(folder: Path, change: dict[bytes, bytes | None]) -> None:
    """Replace, add or (None) remove records."""
    with lmdb.open(str(folder), map_size=1 << 26) as environment, environment.begin(write=True) as transaction:
        for key, value in change.items():
            if value is None:
                transaction.delete(key)
            else:
                transaction.put(key, value)


def problems(folder: Path) -> list[str]:
    report = check_dataset(folder)
    assert report.ok == (not report.problems)
    return report.problems


def test_sound_datasets_have_no_problems(ours: Path, digits: Path) -> None:
    assert problems(ours) == problems(digits) == []
    report = check_dataset(ours)
    assert report.counts == {f"{split}_db/{kind}": count for split, count in (("train", 36), ("val", 4))
                             for kind in ("features", "labels")}  # fmt: skip
    assert report.content_hash == Dataset.open(ours).content_hash
    assert check_dataset(digits).content_hash == Dataset.open(digits).content_hash


def test_progress_reaches_the_end(ours: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_dataset(ours, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (80, 80)


def test_a_missing_label_and_a_missing_feature(digits: Path) -> None:
    rewrite(digits / "train_db/labels", {b"000000003": None, b"stray": raw(IMAGES[0])})
    rewrite(digits / "train_db/labels", {b"000000004": None})
    assert problems(digits) == [
        "train_db: 16 features and 15 labels",
        "train_db: feature 000000003 has no label",
        "train_db: feature 000000004 has no label",
        "train_db: label stray has no feature",
    ]


def test_records_that_do_not_decode_and_shapes_that_do_not_fit(digits: Path) -> None:
    wrong_shape = number(1, 3) + number(2, 4) + number(3, 6) + chunk(4, b"") + number(7, 0)
    declared = encoded(IMAGES[0]).replace(number(2, 4) + number(3, 6), number(2, 9) + number(3, 6), 1)
    changes = {b"000000001": b"junk", b"000000002": wrong_shape, b"000000003": declared}
    rewrite(digits / "train_db/features", changes)
    rewrite(digits / "val_db/labels", {b"000000002": raw(np.zeros((5, 6), np.uint8))})
    assert problems(digits) == [
        "train_db/features: record 000000001 is not a Caffe Datum",
        "train_db/features: record 000000002 contains 0 values where its shape 3x4x6 needs 72",
        "train_db/features: record 000000003 declares the shape 1x9x6, its image has 1x4x6",
        "val_db: feature 000000002 is 6x4, its label 6x5",
        "val_db/labels: record 000000002 has the shape 1x5x6, the first has 1x4x6",
    ]


def test_long_lists_are_cut(digits: Path) -> None:
    rewrite(digits / "train_db/features", {b"%09d" % index: b"junk" for index in range(15)})
    found = problems(digits)
    assert len(found) == 11
    assert found[-1] == "train_db/features: 5 more records cannot be read"


def test_validation_of_another_size_than_training(tmp_path: Path) -> None:
    big = np.zeros((8, 8), np.uint8)
    folder = write_job(tmp_path / "job", [raw(IMAGES[0]), raw(big)], [raw(IMAGES[0]), raw(big)], val=1)
    (folder / "train_db/mean.binaryproto").write_bytes(mean(IMAGES[0]))
    assert problems(folder) == [
        "val_db/features: record 000000000 has the shape 1x8x8, the first has 1x4x6",
        "val_db/labels: record 000000000 has the shape 1x8x8, the first has 1x4x6",
    ]


def test_the_mean(digits: Path) -> None:
    file = digits / "train_db/mean.binaryproto"
    file.write_bytes(mean(np.zeros((6, 4), np.uint8)))
    assert problems(digits) == ["train_db/mean.binaryproto: has the shape 1x6x4, the images 1x4x6"]
    file.write_bytes(b"junk")
    assert problems(digits) == [f"{file}: is not a Caffe BlobProto"]
    file.unlink()
    assert problems(digits) == ["train_db/mean.binaryproto: is missing"]


def test_content_that_changed_since_creation(ours: Path) -> None:
    keep = read_lmdb(ours / "train_db/features")
    rewrite(ours / "train_db/features", {keep[3][0]: keep[4][1]})
    assert problems(ours) == ["train_db/features: its content has changed since creation (SHA-256 differs)"]
    shutil.rmtree(ours / "val_db")
    assert problems(ours)[1:] == ["val_db/features: is missing", "val_db/labels: is missing"]


def test_a_damaged_database_and_a_damaged_description(ours: Path) -> None:
    (ours / "dataset.json").write_text("{")
    file = ours / "val_db/labels/data.mdb"
    file.write_bytes(file.read_bytes()[:-4096])
    found = problems(ours)
    assert len(found) == 2
    assert "dataset.json: cannot be read" in found[0]
    assert "val_db/labels: is a damaged or truncated LMDB database" in found[1]


def test_an_empty_database(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "job/train_db/features", [])
    assert problems(tmp_path / "job") == [
        "train_db/features: contains no records",
        "train_db/mean.binaryproto: is missing",
    ]


def test_mixed_sizes_are_no_problem_where_they_were_wanted(tmp_path: Path) -> None:
    for kind in ("input", "target"):
        (tmp_path / kind).mkdir()
        for index, size in enumerate(((4, 5), (6, 7), (8, 9))):
            Image.new("L", size).save(tmp_path / kind / f"{index}.png")
    Dataset.create(tmp_path / "out", input=tmp_path / "input", target=tmp_path / "target", mixed_sizes=True)
    assert problems(tmp_path / "out") == []
    (tmp_path / "out/dataset.json").unlink()
    assert len(problems(tmp_path / "out")) == 5


def test_nothing_to_check_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such dataset folder"):
        check_dataset(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="is not a dataset"):
        check_dataset(tmp_path)


def test_the_html_sheet_shows_the_stored_pairs(ours: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(ours)
    out = write_sheet(dataset, tmp_path / "sheet.html", count=3)
    page = out.read_text()
    assert "train: 3 of 36 pairs" in page
    assert "val: 3 of 4 pairs" in page
    assert dataset.content_hash in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        for data in re.findall(r"data:image/png;base64,([^\"]+)", page)
    ]
    assert len(shown) == 6 * 3
    for place, index in enumerate((0, 17, 35)):
        feature, label = dataset.train[index]
        assert np.array_equal(shown[3 * place], feature[0])
        assert np.array_equal(shown[3 * place + 1], label[0])
        overlay = shown[3 * place + 2].astype(int)
        reddish = (overlay[..., 0] > overlay[..., 1] + 50).nonzero()
        assert np.array_equal(reddish, ((label[0] == 0) & (feature[0] == 255)).nonzero())


def test_the_png_sheet_is_one_picture(ours: Path, tmp_path: Path) -> None:
    with Image.open(write_sheet(Dataset.open(ours), tmp_path / "sheet.png", count=5)) as sheet:
        assert sheet.mode == "RGB"
        assert (np.asarray(sheet) == 0).all(axis=2).any()


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_sheets_of_other_kinds_of_data(tmp_path: Path, suffix: str) -> None:
    big = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    floating = (
        number(1, 2) + number(2, 1) + number(3, 2) + b"".join(b"\x35" + np.float32(v).tobytes() for v in range(4))
    )
    for name, features, labels in (
        ("scalar", [raw(IMAGES[0], 5)], None),
        ("none", [raw(IMAGES[0])], None),
        ("big", [raw(big)], [raw(big[:, :, 0].copy())]),
        ("float", [floating], [raw(IMAGES[0])]),
        ("<b>&amp;", [raw(IMAGES[0])], [raw(IMAGES[1])]),
    ):
        dataset = Dataset.open(write_job(tmp_path / name, features, labels))
        out = write_sheet(dataset, tmp_path / f"{name}.{suffix}")
        assert out.stat().st_size > 500
    if suffix == "html":
        assert "label 5" in (tmp_path / "scalar.html").read_text()
        assert "no label" in (tmp_path / "none.html").read_text()
        assert "<b>" not in (tmp_path / "<b>&amp;.html").read_text()


def test_a_sheet_that_cannot_be(ours: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(ours)
    with pytest.raises(SettingsError, match="count=0: must be 1 or more"):
        write_sheet(dataset, tmp_path / "a.png", count=0)
    with pytest.raises(SettingsError, match=r"an \.html or a \.png file"):
        write_sheet(dataset, tmp_path / "a.pdf")
    for name, error in (("a.html", DatasetError), ("a.png", ImageError)):
        path = tmp_path / "no" / name
        with pytest.raises(error, match=f"^{path}: cannot be written: there is no folder {path.parent}$"):
            write_sheet(dataset, path)


def test_descriptions_are_plain_json(ours: Path) -> None:
    content = json.loads((ours / "dataset.json").read_text())
    assert content["format"] == "multiseg dataset"
    assert content["version"] == 1
    assert sorted(content["databases"]) == sorted(f"{split}_db/{kind}" for split in ("train", "val")
                                                  for kind in ("features", "labels"))  # fmt: skip


def test_every_changed_byte_of_the_mean_image_is_found(ours: Path) -> None:
    path = ours / "train_db/mean.binaryproto"
    whole = path.read_bytes()
    for at in range(0, len(whole), max(1, len(whole) // 200)):
        changed = bytearray(whole)
        changed[at] ^= 1 + at % 255
        path.write_bytes(changed)
        with pytest.raises(DatasetError, match=r"train_db/mean\.binaryproto: is damaged"):
            _ = Dataset.open(ours).mean_image
    assert any("mean.binaryproto: is damaged" in problem for problem in problems(ours))
    path.unlink()
    with pytest.raises(DatasetError, match=r"mean\.binaryproto: is missing"):
        _ = Dataset.open(ours).mean_pixel
    path.write_bytes(whole)
    (ours / "val_db/mean.binaryproto").write_bytes(b"")
    assert problems(ours) == ["val_db/mean.binaryproto: is missing, or has changed since creation (SHA-256 differs)"]


def test_a_dataset_of_an_earlier_version_has_no_sum_of_its_mean(ours: Path) -> None:
    description = json.loads((ours / "dataset.json").read_text())
    content_hash = Dataset.open(ours).content_hash
    del description["files"], description["sum"]
    (ours / "dataset.json").write_text(json.dumps(description))
    assert problems(ours) == [] and Dataset.open(ours).content_hash == content_hash
    (ours / "dataset.json").write_text(json.dumps({**description, "content_hash": "0" * 64}))
    assert problems(ours) == ["dataset.json: is damaged: its content_hash is not that of its databases"]


@pytest.mark.parametrize("name", ["x" * 300, "nul\0", "y" * 300 + "/data.mdb"])
def test_a_description_with_names_that_no_file_can_have(name: str, ours: Path) -> None:
    description = json.loads((ours / "dataset.json").read_text())
    del description["sum"]
    files, databases = {**description["files"], name: "0" * 64}, {**description["databases"], name: "0" * 64}
    (ours / "dataset.json").write_text(json.dumps({**description, "files": files, "databases": databases}))
    assert f"{name}: is missing" in problems(ours)


@pytest.mark.parametrize("step", [401, pytest.param(1, marks=pytest.mark.nightly)])
def test_every_changed_byte_of_a_dataset_is_found(step: int, tmp_path: Path) -> None:
    for kind in ("input", "target"):
        (tmp_path / kind).mkdir()
        for index in range(4):
            Image.fromarray(np.full((4, 4), 40 * index, np.uint8)).save(tmp_path / kind / f"{index}.png")
    folder = Dataset.create(tmp_path / "out", input=tmp_path / "input", target=tmp_path / "target", val_percent=50).path

    def verify() -> None:
        found = problems(folder)
        if found:
            raise DatasetError(found[0])

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    changes, places = unnoticed(files, verify, step)
    assert changes > 40_000 // step and places == []
