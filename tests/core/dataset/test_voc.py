"""A folder in PASCAL VOC's layout becomes a dataset by one option; masks are compared with what Pillow reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import multiseg
from multiseg.cli import main
from multiseg.errors import DatasetError, ImageError, SettingsError

# From the development kit's documentation: labels of the 21 classes and some of their colours.
COLOURS = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    2: (0, 128, 0),
    3: (128, 128, 0),
    4: (0, 0, 128),
    15: (192, 128, 128),
    20: (0, 64, 128),
}
BORDER = (224, 224, 192)
MASK = np.array([[0, 0, 255, 15], [0, 255, 15, 15], [20, 255, 1, 1]], np.uint8)


def voc(root: Path, train: list[str], val: list[str], sizes: dict[str, tuple[int, int]] | None = None) -> Path:
    """Write a folder in VOC's layout; masks have VOC's palette, images are noise."""
    palette = np.zeros((256, 3), np.uint8)
    for index, colour in (*COLOURS.items(), (255, BORDER)):
        palette[index] = colour
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in dict.fromkeys([*train, *val]):
        height, width = (sizes or {}).get(name, MASK.shape)
        pixels = generator.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(np.resize(MASK, (height, width)))
        mask.putpalette(palette.tobytes())
        mask.save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("".join(f"{name}\n" for name in train))
    (root / "ImageSets/Segmentation/val.txt").write_text("".join(f"{name}\n" for name in val))
    return root


def test_lists_masks_names_and_colours(tmp_path: Path) -> None:
    folder = voc(tmp_path / "VOC2012", ["2007_000042", "2007_000032", "2007_000039"], ["2007_000033"])
    Image.new("RGB", (4, 3)).save(folder / "JPEGImages" / "unlisted.jpg")  # VOC has many images without a mask
    dataset = multiseg.Dataset.create(tmp_path / "out", voc=folder)
    assert (len(dataset.train), len(dataset.val)) == (3, 1)
    assert dataset.labels.kind == "classes"
    assert (dataset.labels.names[0], dataset.labels.names[15], dataset.labels.names[20]) == (
        "background",
        "person",
        "tvmonitor",
    )
    assert len(dataset.labels.names) == len(dataset.labels.colours) == 21
    assert {index: dataset.labels.colours[index] for index in COLOURS} == COLOURS
    assert dataset.labels.ignore == 255
    for split, names in (
        (dataset.train, ["2007_000042", "2007_000032", "2007_000039"]),
        (dataset.val, ["2007_000033"]),
    ):
        for position, name in enumerate(names):
            feature, label = split[position]
            assert label is not None
            assert np.array_equal(
                feature.transpose(1, 2, 0), np.asarray(Image.open(folder / "JPEGImages" / f"{name}.jpg"))
            )
            assert np.array_equal(label[0], np.asarray(Image.open(folder / "SegmentationClass" / f"{name}.png")))
    assert dataset.info["mixed_sizes"] is False
    assert dataset.mean_image is not None


def test_different_sizes_are_allowed(tmp_path: Path) -> None:
    dataset = multiseg.Dataset.create(tmp_path / "out", voc=voc(tmp_path / "in", ["a", "b"], ["c"], {"b": (5, 2)}))
    assert dataset.info["mixed_sizes"] is True
    assert [dataset.train[position][0].shape for position in range(2)] == [(3, 3, 4), (3, 5, 2)]


def test_masks_may_be_rgb_or_grey(tmp_path: Path) -> None:
    folder = voc(tmp_path / "in", ["a", "b"], [])
    for name, mode in (("a", "RGB"), ("b", "L")):
        path = folder / "SegmentationClass" / f"{name}.png"
        mask = Image.open(path)
        (mask.convert("RGB") if mode == "RGB" else Image.fromarray(np.asarray(mask))).save(path)
    dataset = multiseg.Dataset.create(tmp_path / "out", voc=folder)
    for position in range(2):
        label = dataset.train[position][1]
        assert label is not None
        assert np.array_equal(label[0], MASK)


def test_classes_of_ones_own(tmp_path: Path) -> None:
    folder = voc(tmp_path / "in", ["a"], [])
    names = [f"class {number}" for number in range(21)]
    dataset = multiseg.Dataset.create(tmp_path / "out", voc=folder, classes=names)
    assert list(dataset.labels.names) == names
    assert dataset.labels.colours[15] == COLOURS[15]  # of the palette


def test_the_command(tmp_path: Path) -> None:
    folder = voc(tmp_path / "in", ["a", "b"], ["c"])
    result = CliRunner().invoke(main, ["create-dataset", str(tmp_path / "out"), "--voc", str(folder), "--seed", "1"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{tmp_path / 'out'}: 2 pairs for training and 1 for validation, of shape 3x3x4")
    result = CliRunner().invoke(main, ["create-dataset", str(tmp_path / "no"), "--voc", str(folder), "--input", "x"])
    assert "--voc states all folders; leave out --input and --target" in result.stderr
    result = CliRunner().invoke(main, ["create-dataset", str(tmp_path / "no"), "--input", "x"])
    assert "--input and --target are missing" in result.stderr
    result = CliRunner().invoke(
        main, ["create-dataset", str(tmp_path / "no"), "--voc", str(folder), "--val-percent", "5"]
    )
    assert "--val-percent and --voc exclude each other" in result.stderr
    assert not (tmp_path / "no").exists()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = voc(tmp_path / "kit" / "VOC2012", ["a", "b"], ["c"])
    lists = folder / "ImageSets/Segmentation"

    def message(place: Path) -> str:
        with pytest.raises((DatasetError, ImageError, SettingsError)) as caught:
            multiseg.Dataset.create(tmp_path / "out", voc=place)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / ".out.unfinished").exists()
        return str(caught.value)

    assert message(folder.parent).endswith(f"no such folder of PASCAL VOC's layout; choose {folder}")
    (lists / "train.txt").write_text("a\nmissing\n")
    missing = folder / "JPEGImages" / "missing.jpg"
    assert message(folder) == f"{lists / 'train.txt'}:2: {missing} does not exist; add it or remove the line"
    (lists / "train.txt").write_text("a\nb\na\n")
    assert message(folder) == f"{lists / 'train.txt'}:3: names a twice; remove the line"
    (lists / "train.txt").write_text("a\nc\n")
    assert "c is in train.txt and in val.txt" in message(folder)
    (lists / "train.txt").write_text("\n")
    assert "train.txt: has no names" in message(folder)
    (lists / "train.txt").unlink()
    assert f"{lists / 'train.txt'}: cannot be read" in message(folder)


def test_a_colour_that_is_none_of_vocs(tmp_path: Path) -> None:
    folder = voc(tmp_path / "in", ["a"], [])
    pixels = np.asarray(Image.open(folder / "SegmentationClass" / "a.png").convert("RGB")).copy()
    pixels[2, 1] = (1, 2, 3)
    Image.fromarray(pixels).save(folder / "SegmentationClass" / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: its pixel at x=1, y=2 has the colour 1 2 3"):
        multiseg.Dataset.create(tmp_path / "out", voc=folder)
