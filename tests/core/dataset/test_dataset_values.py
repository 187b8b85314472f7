"""Values of more than 8 bits, EXIF orientation and transparency: from files to records, means and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from multiseg import Dataset
from multiseg.cli import main
from multiseg.dataset.check import check_dataset
from multiseg.dataset.records import Datum, datum_pixels, parse_datum, parse_mean, values_datum
from multiseg.errors import DatasetError, ImageError

RNG = np.random.default_rng(3)


def create(parent: Path, **options: Any) -> Dataset:
    return Dataset.create(
        parent / "dataset",
        **{
            "input": parent / "input",
            "target": parent / "target",
            "val_percent": 0,
            "seed": 1,
            "workers": 1,
            **options,
        },
    )


def deep_folders(parent: Path, suffix: str, shape: tuple[int, ...] = (6, 5), count: int = 9) -> dict[str, np.ndarray]:
    """Inputs of 16 bits, written by OpenCV or NumPy, and 8-bit targets; returns the inputs (C, H, W) in RGB by name."""
    (parent / "input").mkdir()
    (parent / "target").mkdir()
    inputs = {}
    for number in range(count):
        values = RNG.integers(0, 65536, shape).astype(np.uint16)
        name = parent / "input" / f"{number}{suffix}"
        if suffix == ".npy":
            np.save(name, values)
        else:
            assert cv2.imwrite(str(name), values[..., ::-1] if values.ndim == 3 else values)
        inputs[str(number)] = values[np.newaxis] if values.ndim == 2 else values.transpose(2, 0, 1)
        Image.fromarray(np.full((6, 5), number, np.uint8)).save(parent / "target" / f"{number}.png")
    return inputs


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
@pytest.mark.parametrize("encoding", ["png", "none"])
def test_16_bit_inputs_keep_their_values(tmp_path: Path, suffix: str, shape: tuple[int, ...], encoding: str) -> None:
    inputs = deep_folders(tmp_path, suffix, shape)
    dataset = create(tmp_path, feature_encoding=encoding)
    assert dataset.values == dataset.info["values"] == "float32"
    for position in range(len(dataset.train)):
        feature, label = dataset.train[position]
        assert label is not None
        assert feature.dtype == np.float32
        assert np.array_equal(feature, inputs[str(label[0, 0, 0])])
    mean = np.mean(list(inputs.values()), axis=0, dtype=np.float64)
    assert np.allclose(dataset.mean_image, mean, rtol=1e-7)
    assert np.allclose(dataset.mean_pixel, mean.mean(axis=(1, 2)), rtol=1e-6)
    assert check_dataset(tmp_path / "dataset").ok


def test_caffe_reads_the_values_as_float_data_in_bgr(tmp_path: Path) -> None:
    """The generated message class of protobuf, without multiseg's own reading."""
    inputs = deep_folders(tmp_path, ".png", (6, 5, 3))
    create(tmp_path)
    with lmdb.open(str(tmp_path / "dataset/train_db/features"), readonly=True, lock=False) as env, env.begin() as data:
        records = [value for _, value in data.cursor()]
    stored = set()
    for record in records:
        datum = Datum.FromString(record)
        assert (datum.channels, datum.height, datum.width, datum.encoded, datum.data) == (3, 6, 5, False, b"")
        stored.add(np.array(datum.float_data, np.float32).reshape(3, 6, 5)[::-1].tobytes())
        assert datum.SerializeToString() == record  # field order and form as Caffe's own tools write them
    assert stored == {values.astype(np.float32).tobytes() for values in inputs.values()}


def test_float_data_is_read_in_every_form_of_a_record() -> None:
    """With and without data, label and trailing fields, packed, and with bytes of values that look like the field's tag."""
    values = np.frombuffer(b"\x35" * 24, np.float32).reshape(1, 2, 3)
    for extra in ({}, {"label": 53}, {"encoded": False}, {"data": b""}, {"label": 300, "encoded": False}):
        datum = Datum(channels=1, height=2, width=3, float_data=values.ravel().tolist(), **extra)
        record = datum.SerializeToString()
        assert np.array_equal(datum_pixels(parse_datum(record), record), values)
    packed = Datum(channels=1, height=2, width=3).SerializeToString() + b"\x32\x18" + values.tobytes()
    assert np.array_equal(datum_pixels(parse_datum(packed), packed), values)
    reordered = (
        Datum(float_data=values.ravel().tolist()).SerializeToString()
        + Datum(channels=1, height=2, width=3).SerializeToString()
    )
    assert np.array_equal(datum_pixels(parse_datum(reordered), reordered), values)
    large = RNG.normal(0, 1000, (3, 40, 50)).astype(np.float32)
    assert np.array_equal(datum_pixels(parse_datum(values_datum(large)), values_datum(large)), large)


def test_targets_of_arrays_and_turned_targets(tmp_path: Path) -> None:
    """Targets are .npy files of class numbers, or PNG files with an EXIF orientation of their own."""
    deep_folders(tmp_path, ".png", count=3)
    masks = RNG.integers(0, 3, (3, 6, 5))
    for number, mask in enumerate(masks):
        (tmp_path / "target" / f"{number}.png").unlink()
        np.save(tmp_path / "target" / f"{number}.npy", mask)
    dataset = create(tmp_path, labels="classes")
    stored = {label.tobytes() for _, label in (dataset.train[position] for position in range(3)) if label is not None}
    assert stored == {mask.astype(np.uint8).tobytes() for mask in masks}
    for number, mask in enumerate(masks):
        (tmp_path / "target" / f"{number}.npy").unlink()
        exif = Image.Exif()
        exif[0x0112] = 8  # turn left
        Image.fromarray(np.rot90(mask, -1).astype(np.uint8)).save(tmp_path / "target" / f"{number}.png", exif=exif)
    turned = Dataset.create(
        tmp_path / "turned",
        input=tmp_path / "input",
        target=tmp_path / "target",
        val_percent=0,
        seed=1,
        labels="classes",
    )
    stored = {label.tobytes() for _, label in (turned.train[position] for position in range(3)) if label is not None}
    assert stored == {mask.astype(np.uint8).tobytes() for mask in masks}
    assert turned.info["applied"]["exif orientation"] == 3


def test_the_number_of_workers_does_not_change_deep_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiseg.dataset import creation

    monkeypatch.setattr(creation, "MOST_PAIRS", 1)
    monkeypatch.setattr(creation, "_MIN_CHUNKS_PER_WORKER", 1)
    deep_folders(tmp_path, ".png")
    hashes = set()
    for workers in (1, 3):
        dataset = Dataset.create(
            tmp_path / f"{workers}",
            input=tmp_path / "input",
            target=tmp_path / "target",
            val_percent=0,
            seed=1,
            workers=workers,
        )
        hashes.add((dataset.content_hash, (tmp_path / f"{workers}/train_db/mean.binaryproto").read_bytes()))
    assert len(hashes) == 1


def test_different_depths_in_one_folder_are_refused(tmp_path: Path) -> None:
    deep_folders(tmp_path, ".png")
    Image.fromarray(np.zeros((6, 5), np.uint8)).save(tmp_path / "input" / "5.png")
    with pytest.raises(
        ImageError, match=r"5\.png is 8-bit and .*0\.png of more than 8 bits.* save all images with one depth"
    ):
        create(tmp_path)
    (tmp_path / "input" / "5.png").unlink()
    (tmp_path / "target" / "5.png").unlink()
    with pytest.raises(ImageError, match=r"\.png: has values of more than 8 bits, which JPEG cannot hold"):
        create(tmp_path, feature_encoding="jpg")
    assert not (tmp_path / "dataset").exists()


def test_mean_of_small_and_negative_numbers(tmp_path: Path) -> None:
    """The mean is neither rounded nor clipped."""
    (tmp_path / "input").mkdir()
    (tmp_path / "target").mkdir()
    values = RNG.normal(-0.4, 0.2, (4, 6, 5)).astype(np.float32)
    for number, one in enumerate(values):
        np.save(tmp_path / "input" / f"{number}.npy", one)
        Image.fromarray(np.zeros((6, 5), np.uint8)).save(tmp_path / "target" / f"{number}.png")
    dataset = create(tmp_path)
    assert np.allclose(dataset.mean_image[0], values.mean(axis=0, dtype=np.float64), rtol=1e-6)
    record = (tmp_path / "dataset/train_db/mean.binaryproto").read_bytes()
    assert np.allclose(parse_mean(record)[0], values.mean(axis=0, dtype=np.float64), rtol=1e-6)


def photographs(parent: Path, shape: tuple[int, int]) -> None:
    """Three photographs turned to the right by their EXIF orientation, one upright, and targets that are upright."""
    (parent / "input").mkdir()
    (parent / "target").mkdir()
    for number in range(4):
        upright = np.zeros((*shape, 3), np.uint8)
        upright[: shape[0] // 2] = 10 * number + 50  # the upper half is bright
        image = Image.fromarray(upright)
        exif = Image.Exif()
        if number:
            image = image.transpose(Image.Transpose.ROTATE_90)  # orientation 6 says: turn right to see it upright
            exif[0x0112] = 6
        image.save(parent / "input" / f"{number}.png", exif=exif)
        Image.fromarray(upright).save(parent / "target" / f"{number}.png")


@pytest.mark.parametrize("shape", [(8, 8), (8, 4)])
def test_orientation_is_applied_and_reported(tmp_path: Path, shape: tuple[int, int]) -> None:
    photographs(tmp_path, shape)
    folders = ["--input", str(tmp_path / "input"), "--target", str(tmp_path / "target")]
    result = CliRunner().invoke(main, ["create-dataset", str(tmp_path / "dataset"), *folders, "--val-percent", "0"])
    assert "3 images turned by their EXIF orientation" in result.output
    dataset = Dataset.open(tmp_path / "dataset")
    assert (dataset.exif, dataset.info["exif"]) == ("apply", "apply")
    for position in range(4):
        feature, label = dataset.train[position]
        assert np.array_equal(feature, label)
    assert all(feature.shape == (3, *shape) for feature, _ in (dataset.train[position] for position in range(4)))


def test_orientation_is_ignored_on_request(tmp_path: Path) -> None:
    photographs(tmp_path, (8, 8))
    dataset = create(tmp_path, exif="ignore")
    assert dataset.exif == json.loads((tmp_path / "dataset/dataset.json").read_text())["exif"] == "ignore"
    assert sum(np.array_equal(*dataset.train[position]) for position in range(4)) == 1


def test_a_turned_input_of_another_size_names_the_option(tmp_path: Path) -> None:
    photographs(tmp_path, (8, 4))
    for number in range(4):  # targets drawn over the pixels as they are stored
        Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(tmp_path / "target" / f"{number}.png")
    (tmp_path / "input" / "0.png").unlink()
    (tmp_path / "target" / "0.png").unlink()
    with pytest.raises(
        DatasetError, match=r"one of them was turned by its EXIF orientation, which exif='ignore' leaves"
    ):
        create(tmp_path)
    assert len(create(tmp_path, exif="ignore").train) == 3


def test_transparency_is_reported(tmp_path: Path) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "target").mkdir()
    for number in range(3):
        pixels = np.full((6, 5, 4), 40 * number, np.uint8)
        pixels[..., 3] = 0 if number == 1 else 255
        Image.fromarray(pixels).save(tmp_path / "input" / f"{number}.png")
        Image.fromarray(np.full((6, 5), number, np.uint8)).save(tmp_path / "target" / f"{number}.png")
    with pytest.raises(ImageError, match=r"1\.png: is a transparent image; choose channels RGB"):
        create(tmp_path)
    dataset = create(tmp_path, channels="RGB")
    assert dataset.info["applied"] == {"exif orientation": 0, "transparency": 1}
    seen = {
        int(label[0, 0, 0]): int(feature[0, 0, 0]) for feature, label in (dataset.train[index] for index in range(3))
    }
    assert seen == {0: 0, 1: 255, 2: 80}


def test_files_left_out_are_named(tmp_path: Path) -> None:
    deep_folders(tmp_path, ".png")
    for name in ("a.gif", "b.HEIC", "c.heic", "readme", "d.npy", ".hidden.gif"):
        (tmp_path / "input" / name).write_bytes(b"x")
    folders = ["--input", str(tmp_path / "input"), "--target", str(tmp_path / "target")]
    result = CliRunner().invoke(main, ["create-dataset", str(tmp_path / "dataset"), *folders])
    assert result.exit_code == 0, result.output
    assert f"left out in {tmp_path / 'input'}: 1 .gif, 2 .heic, 1 .npy, 1 no extension" in result.output
    assert "inputs have values of more than 8 bits, stored as float_data" in result.output
    info = Dataset.open(tmp_path / "dataset").info
    assert info["left_out"] == {"input": {".gif": 1, ".heic": 2, ".npy": 1, "no extension": 1}}
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.gif").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"contains no images; supported are .* npy; it contains 1 \.gif"):
        Dataset.create(tmp_path / "other", input=tmp_path / "empty", target=tmp_path / "target")


def test_grey_webp_beside_other_grey_files_is_grey(tmp_path: Path) -> None:
    """WebP has no grey mode: Pillow and OpenCV write grey as three equal channels."""
    for kind in ("input", "target"):
        (tmp_path / kind).mkdir()
        for number, suffix in enumerate((".webp", ".png", ".webp")):
            grey = RNG.integers(0, 256, (6, 5), np.uint8)
            Image.fromarray(grey).save(tmp_path / kind / f"{number}{suffix}", lossless=True)
    assert create(tmp_path).train.shape == (1, 6, 5)
    colour = RNG.integers(0, 256, (6, 5, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "input" / "1.png")
    dataset = Dataset.create(tmp_path / "colour", input=tmp_path / "input", target=tmp_path / "target", seed=1)
    assert dataset.train.shape == (3, 6, 5)
    assert dataset.train.label_shape == (1, 6, 5)
    for path in (tmp_path / "target").iterdir():
        Image.fromarray(RNG.integers(0, 3, (6, 5)).astype(np.uint8)).save(path, lossless=True)
    classes = Dataset.create(
        tmp_path / "classes",
        input=tmp_path / "input",
        target=tmp_path / "target",
        seed=1,
        val_percent=0,
        labels="classes",
    )
    assert classes.train.label_shape == (1, 6, 5)
    assert all(label.max() < 3 for _, label in (classes.train[index] for index in range(3)))


def test_check_dataset_shows_the_range_of_values(tmp_path: Path) -> None:
    inputs = np.stack(list(deep_folders(tmp_path, ".png").values())).astype(np.float64)
    create(tmp_path)
    result = CliRunner().invoke(main, ["check-dataset", str(tmp_path / "dataset"), "--json"])
    values = json.loads(result.output)["values"]
    assert values["train_db/features"] == {
        "type": "float32", "minimum": inputs.min(), "maximum": inputs.max(), "mean": pytest.approx(inputs.mean(), rel=1e-9),
    }  # fmt: skip
    assert values["train_db/labels"] == {"type": "uint8", "minimum": 0, "maximum": 8, "mean": 4}
    text = CliRunner().invoke(main, ["check-dataset", str(tmp_path / "dataset")]).output
    assert "train_db/labels: uint8, 0 to 8, mean 4" in text
    page = CliRunner().invoke(main, ["show-dataset", str(tmp_path / "dataset"), "-o", str(tmp_path / "sheet.html")])
    assert page.exit_code == 0, page.output
    first = Dataset.open(tmp_path / "dataset").train[0][0]
    assert f"input {first.min():.4g} to {first.max():.4g}" in (tmp_path / "sheet.html").read_text()


def test_a_database_that_is_written_to_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Another process commits a transaction, which LMDB's own library does here."""
    deep_folders(tmp_path, ".png")
    dataset = create(tmp_path)
    assert dataset.train[0] is not None
    with lmdb.open(str(tmp_path / "dataset/train_db/features"), map_size=1 << 24) as env, env.begin(write=True) as data:
        data.put(b"000000000", values_datum(np.zeros((1, 6, 5), np.float32)))
    for read in (lambda: dataset.train[0], lambda: dataset.train.read([1, 2])):
        with pytest.raises(
            DatasetError, match=r"train_db/features: was written to by another process while it was read"
        ):
            read()
    assert np.array_equal(Dataset.open(tmp_path / "dataset").train[0][0], np.zeros((1, 6, 5)))
