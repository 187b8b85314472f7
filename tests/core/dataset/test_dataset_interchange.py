"""What DIGITS and Caffe write opens with the right pixels, and what we write is what they would."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from PIL import Image

from helpers.dataset_wire import (
    BLOB,
    DATUM,
    chunk,
    counted,
    encoded,
    floats,
    mean,
    number,
    parse,
    raw,
    read_lmdb,
    write_job,
    write_lmdb,
)
from multiseg import Dataset
from multiseg.dataset import open_split
from multiseg.dataset.check import check_dataset
from multiseg.errors import DatasetError
from multiseg.images import Channels

RNG = np.random.default_rng(3)
GREY = [RNG.integers(0, 256, (6, 9), np.uint8) for _ in range(5)]
RGB = [RNG.integers(0, 256, (6, 9, 3), np.uint8) for _ in range(5)]


def chw(image: np.ndarray) -> np.ndarray:
    return image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)


@pytest.mark.parametrize("images", [GREY, RGB], ids=["grey", "rgb"])
@pytest.mark.parametrize("store", [raw, encoded], ids=["raw", "png"])
def test_a_digits_job_folder_opens(tmp_path: Path, images: list[np.ndarray], store) -> None:
    folder = write_job(tmp_path / "job", [store(image) for image in images], [raw(image) for image in GREY], val=2)
    average = np.arange(images[0].size, dtype=np.uint8).reshape(images[0].shape)
    (folder / "train_db" / "mean.binaryproto").write_bytes(mean(average))

    dataset = Dataset.open(folder)

    assert (len(dataset.train), len(dataset.val)) == (3, 2)
    assert dataset.train.shape == chw(images[0]).shape
    assert dataset.train.label_shape == (1, 6, 9)
    for split, first in ((dataset.train, 0), (dataset.val, 3)):
        for index in range(len(split)):
            feature, label = split[index]
            assert feature.dtype == label.dtype == np.uint8
            assert np.array_equal(feature, chw(images[first + index]))
            assert np.array_equal(label, chw(GREY[first + index]))
    assert dataset.mean_image.dtype == np.float32
    assert np.array_equal(dataset.mean_image, chw(average))
    assert np.allclose(dataset.mean_pixel, chw(average).reshape(len(chw(average)), -1).mean(axis=1))
    assert dataset.info["train"]["count"] == 3
    assert check_dataset(folder).problems == []


def test_jpg_records_open_as_pillow_decodes_them(tmp_path: Path) -> None:
    smooth = np.tile(np.linspace(0, 255, 32, dtype=np.uint8)[:, np.newaxis, np.newaxis], (1, 24, 3))
    record = encoded(smooth, "JPEG", quality=90)
    folder = write_job(tmp_path / "job", [record], [raw(smooth[:, :, 0].copy())])
    feature, _ = Dataset.open(folder).train[0]
    assert np.array_equal(feature, chw(np.asarray(Image.open(io.BytesIO(parse(record, DATUM)["data"])))))
    assert np.abs(feature.astype(int) - chw(smooth)).max() < 8


@pytest.mark.parametrize("channels", ["none", "L", "RGB"])
def test_jpeg_files_are_stored_as_they_are(tmp_path: Path, channels: Channels) -> None:
    """Encoded again, they would lose quality. Other files are encoded, also those that some programs turn and others do not."""
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 16, dtype=np.uint8)[:, np.newaxis], (1, 8)))
    mode = "L" if channels == "L" else "RGB"
    turn = Image.Exif()
    turn[274] = 3  # the orientation: turned by 180 degrees
    files: dict[str, tuple[str, dict[str, Any]]] = {
        "0.jpg": (mode, {}),
        "1.jpg": (mode, {"quality": 30, "progressive": True}),
        "2.jpg": (mode, {"exif": turn}),
        "3.png": (mode, {}),
        **({"4.jpg": ("L", {})} if channels == "RGB" else {}),
    }
    for kind in ("input", "target"):
        (tmp_path / kind).mkdir()
    for name, (stored, options) in files.items():
        ramp.convert(stored).save(tmp_path / "input" / name, **options)
        ramp.save(tmp_path / "target" / f"{name[0]}.png")
    ramp.save(tmp_path / "target" / "5.png")
    (tmp_path / "input" / "5.jpg").write_bytes((tmp_path / "input" / "0.jpg").read_bytes() + b"video")
    out = tmp_path / "out"
    dataset = Dataset.create(
        out, input=tmp_path / "input", target=tmp_path / "target", val_percent=0, seed=1, feature_encoding="jpg",
        channels=channels,
    )  # fmt: skip
    records = [parse(record, DATUM)["data"] for _, record in read_lmdb(out / "train_db/features")]
    contents = {path.name: path.read_bytes() for path in (tmp_path / "input").iterdir()}
    assert {name for name, content in contents.items() if content in records} == {"0.jpg", "1.jpg"}
    for index, record in enumerate(records):
        image = Image.open(io.BytesIO(record))
        assert image.mode == mode and image.getexif().get(274, 1) == 1
        assert np.array_equal(dataset.train[index][0], chw(np.asarray(image)))


def test_without_a_labels_database_the_label_is_the_records_number(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", [raw(GREY[0], 7), raw(GREY[1], 100_000)], None)
    dataset = Dataset.open(folder)
    assert dataset.train.label_shape == (1, 1, 1)
    assert [dataset.train[index][1].item() for index in (0, 1)] == [7, 100_000]
    _, labels = dataset.train.read([1, 0])
    assert labels.tolist() == [[[[100_000]]], [[[7]]]]


def test_without_any_label_it_is_none(tmp_path: Path) -> None:
    split = Dataset.open(write_job(tmp_path / "job", [raw(image) for image in GREY], None)).train
    assert split.label_shape is None
    assert split[0][1] is None
    assert split.read([0, 1])[1] is None


@pytest.mark.parametrize("packed", [False, True])
def test_float_data_keep_their_values(tmp_path: Path, packed: bool) -> None:
    values = np.array([[0.5, -3.25, 65535.0], [1e-3, 7.0, 300.0]], np.float32)
    record = number(1, 1) + number(2, 2) + number(3, 3) + floats(6, values.ravel().tolist(), packed)
    split = Dataset.open(write_job(tmp_path / "job", [record], None)).train
    feature, _ = split[0]
    assert feature.dtype == np.float32
    assert np.array_equal(feature, values[np.newaxis])
    assert split.read([0, 0])[0].dtype == np.float32


def test_a_database_of_caffes_own_tools_opens(tmp_path: Path) -> None:
    """convert_imageset's keys are number and file name, in the order of neither; its encoded records tell no shape."""
    buffer = io.BytesIO()
    Image.fromarray(RGB[0]).save(buffer, "PNG")
    records = [
        (b"00000001_dog/b.png", chunk(4, buffer.getvalue()) + number(5, 4) + number(7, 1)),
        (b"00000000_cat/a.png", raw(RGB[1], label=3)),
    ]
    split = open_split(write_lmdb(tmp_path / "lmdb", records))
    assert len(split) == 2
    assert np.array_equal(split[0][0], chw(RGB[1]))
    assert np.array_equal(split[1][0], chw(RGB[0]))
    assert [split[index][1].item() for index in (0, 1)] == [3, 4]


def test_labels_are_found_by_key(tmp_path: Path) -> None:
    keys = [b"b", b"a", b"c"]
    write_lmdb(tmp_path / "features", [(key, raw(GREY[index])) for index, key in enumerate(keys)])
    write_lmdb(tmp_path / "labels", [(key, raw(GREY[index])) for index, key in enumerate(keys) if key != b"a"])
    split = open_split(tmp_path / "features")
    for index, original in ((1, 0), (2, 2)):
        feature, label = split[index]
        assert np.array_equal(feature, chw(GREY[original]))
        assert np.array_equal(label, feature)
    with pytest.raises(DatasetError, match="no label for the key a"):
        split[0]


def test_a_single_database_opens_with_the_labels_beside_it(tmp_path: Path) -> None:
    folder = write_job(tmp_path / "job", [raw(image) for image in RGB], [raw(image) for image in GREY], val=2)
    split = open_split(folder / "val_db/features")
    assert len(split) == 2
    assert np.array_equal(split[1][1], chw(GREY[4]))
    assert np.array_equal(open_split(folder / "val_db/labels")[1][0], chw(GREY[4]))


def test_palette_images_in_records_are_read_as_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(GREY[0]).convert("P")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    split = open_split(write_lmdb(tmp_path / "lmdb", counted([chunk(4, buffer.getvalue()) + number(7, 1)])))
    assert np.array_equal(split[0][0], chw(np.asarray(image.convert("RGB"))))


def test_databases_opened_elsewhere_in_the_process_do_not_matter(tmp_path: Path) -> None:
    """pycaffe's data layer has the same files open; the lmdb module refuses that."""
    folder = write_lmdb(tmp_path / "features", counted([raw(GREY[0])]))
    with lmdb.open(str(folder), readonly=True):
        first, second = open_split(folder), open_split(folder)
        assert np.array_equal(first[0][0], second[0][0])


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Ten colour inputs with grey targets."""
    numbers = np.random.default_rng(0)
    for kind, shape in (("input", (8, 5, 3)), ("target", (8, 5))):
        (tmp_path / kind).mkdir()
        for index in range(10):
            Image.fromarray(numbers.integers(0, 256, shape, np.uint8)).save(tmp_path / kind / f"{index:02d}.png")
    return tmp_path


def originals(folder: Path, kind: str) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in sorted((folder / kind).iterdir())]


@pytest.mark.parametrize("feature_encoding", ["png", "jpg", "none"])
@pytest.mark.parametrize("label_encoding", ["png", "none"])
def test_what_we_write_is_digits_layout(folders: Path, feature_encoding: str, label_encoding: str) -> None:
    Dataset.create(
        folders / "out",
        input=folders / "input",
        target=folders / "target",
        val_percent=25,
        seed=11,
        feature_encoding=feature_encoding,
        label_encoding=label_encoding,
    )
    # both lists sorted by path, one shuffle, the first floor(N * percent / 100) for validation
    import random

    order = list(range(10))
    random.Random(11).shuffle(order)
    expected = {"val_db": order[:2], "train_db": order[2:]}
    inputs, targets = originals(folders, "input"), originals(folders, "target")
    for split, indices in expected.items():
        features = read_lmdb(folders / "out" / split / "features")
        labels = read_lmdb(folders / "out" / split / "labels")
        assert [key for key, _ in features] == [key for key, _ in labels] == [b"%09d" % n for n in range(len(indices))]
        for (_, feature), (_, label), index in zip(features, labels, indices, strict=True):
            found = parse(feature, DATUM)
            assert (found["channels"], found["height"], found["width"]) == (3, 8, 5)
            if feature_encoding == "none":
                assert feature == raw(inputs[index])
            else:
                assert found["encoded"] == 1
                image = Image.open(io.BytesIO(found["data"]))
                assert image.format == {"png": "PNG", "jpg": "JPEG"}[feature_encoding]
                if feature_encoding == "png":
                    assert np.array_equal(np.asarray(image), inputs[index])
                else:
                    buffer = io.BytesIO()
                    Image.fromarray(inputs[index]).save(buffer, "JPEG", quality=90)
                    assert found["data"] == buffer.getvalue()
            if label_encoding == "none":
                assert label == raw(targets[index])
            else:
                found = parse(label, DATUM)
                assert found["encoded"] == 1
                assert np.array_equal(np.asarray(Image.open(io.BytesIO(found["data"]))), targets[index])
        blob = parse((folders / "out" / split / "mean.binaryproto").read_bytes(), BLOB)
        assert [blob[name] for name in ("num", "channels", "height", "width")] == [1, 3, 8, 5]
        stored = np.array(struct.unpack(f"<{3 * 8 * 5}f", blob["data"])).reshape(3, 8, 5)
        average = np.mean([inputs[index] for index in indices], axis=0)
        assert np.array_equal(stored, np.around(average)[:, :, ::-1].transpose(2, 0, 1))


def test_nothing_but_the_databases_and_the_mean_stand_in_digits_folders(folders: Path) -> None:
    Dataset.create(folders / "out", input=folders / "input", target=folders / "target")
    found = {str(path.relative_to(folders / "out")) for path in (folders / "out").rglob("*") if path.is_file()}
    assert found == {
        "dataset.json",
        *(f"{split}_db/{name}" for split in ("train", "val") for name in
          ("features/data.mdb", "labels/data.mdb", "mean.binaryproto")),
    }  # fmt: skip


def test_reading_gives_back_what_was_created(folders: Path) -> None:
    for feature_encoding in ("png", "none"):
        out = folders / feature_encoding
        dataset = Dataset.create(
            out, input=folders / "input", target=folders / "target", val_percent=0, feature_encoding=feature_encoding
        )
        assert len(dataset.val) == 0
        stored = sorted(
            (feature.tobytes(), label.tobytes()) for feature, label in (dataset.train[i] for i in range(10))
        )
        files = zip(originals(folders, "input"), originals(folders, "target"), strict=True)
        assert stored == sorted((chw(a).tobytes(), chw(b).tobytes()) for a, b in files)
