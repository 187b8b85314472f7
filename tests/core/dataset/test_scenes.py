"""Synthetic scenes: what their masks hold, seen through Pillow and NumPy, and that a seed repeats them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg.errors import SettingsError

SHAPES = ["background", "disc", "ring", "square", "cross", "triangle", "star"]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return multiseg.create_images(tmp_path_factory.mktemp("shapes") / "out", scene="shapes", count=60, seed=1)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return multiseg.create_images(tmp_path_factory.mktemp("cells") / "out", scene="cells", count=150, seed=1)


def images(folder: Path) -> list[Image.Image]:
    return [Image.open(path) for path in sorted(folder.iterdir())]


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_the_triangles_are_those_of_earlier_versions(tmp_path: Path) -> None:
    out = multiseg.create_images(tmp_path / "out", count=3, size=16, grid=2, seed=5)
    pixels = {str(path.relative_to(out)): np.asarray(Image.open(path)).tobytes() for path in sorted(out.rglob("*.png"))}
    whole = hashlib.sha256(b"".join(pixels[name] for name in sorted(pixels))).hexdigest()
    assert sorted(path.name for path in out.iterdir()) == ["grid.png", "input", "target"]
    assert whole == "cbf1429814f056e6a154fb8fc264105d8b15f85b2500212c2f2d198dd7c28f1a"  # of commit cd5eac8


def test_shapes_are_colour_images_with_palette_masks(shapes: Path) -> None:
    inputs, masks = images(shapes / "input"), images(shapes / "target")
    assert {(image.mode, image.size) for image in inputs} == {("RGB", (64, 64))}
    assert {(image.mode, image.size) for image in masks} == {("P", (64, 64))}
    assert len({tuple(mask.getpalette() or ()) for mask in masks}) == 1
    palette = np.array(masks[0].getpalette()).reshape(-1, 3)
    assert len({tuple(colour) for colour in palette[[*range(7), 255]].tolist()}) == 8
    assert Image.open(shapes / "grid.png").size == (256, 256)
    assert (shapes / "classes.txt").read_text().splitlines() == SHAPES
    values = np.unique([np.asarray(mask) for mask in masks]).tolist()
    assert values == [*range(7), 255]


def test_a_border_separates_all_classes_and_is_thin(shapes: Path) -> None:
    for image in images(shapes / "target"):
        mask = np.asarray(image)
        for first, second in ((mask[:-1], mask[1:]), (mask[:, :-1], mask[:, 1:]), (mask[:-1, 1:], mask[1:, :-1])):
            touching = (first != second) & (first != 255) & (second != 255)
            assert not touching.any()
        inner = [mask[1 + row : 63 + row, 1 + column : 63 + column] for row in (-1, 0, 1) for column in (-1, 0, 1)]
        # every ignored pixel is within two pixels of one that counts, at least for most of the border
        assert (np.all([part == 255 for part in inner], axis=0)).mean() < 0.05


def test_shapes_differ_from_their_background_in_each_image(shapes: Path) -> None:
    for picture, image in zip(images(shapes / "input"), images(shapes / "target"), strict=True):
        pixels, mask = np.asarray(picture).astype(float), np.asarray(image)
        background = pixels[mask == 0].mean(axis=0)
        for label in set(np.unique(mask).tolist()) - {0, 255}:
            if (mask == label).sum() > 20:
                assert abs(pixels[mask == label].mean(axis=0) - background).max() > 25


def test_backgrounds_are_textured(shapes: Path) -> None:
    spread = [
        np.asarray(picture)[np.asarray(image) == 0].std(axis=0).max()
        for picture, image in zip(images(shapes / "input"), images(shapes / "target"), strict=True)
    ]
    assert min(spread) > 5


def test_cells_are_sixteen_bits_and_two_percent(cells: Path) -> None:
    inputs, masks = images(cells / "input"), images(cells / "target")
    pixels = np.stack([np.asarray(image) for image in inputs]).astype(np.int64)
    labels = np.stack([np.asarray(image) for image in masks])
    assert {image.mode for image in inputs} == {"I;16"}
    assert {image.mode for image in masks} == {"L"}
    assert pixels.max() > 40_000
    assert len(np.unique(pixels)) > 10_000
    assert np.unique(labels).tolist() == [0, 1]
    assert 0.015 < labels.mean() < 0.025
    assert (labels.sum(axis=(1, 2)) > 0).all()
    assert (cells / "classes.txt").read_text().splitlines() == ["tissue", "cell"]
    # no threshold of the brightness separates them: Dice of the best one stays low
    dice = [
        2 * ((pixels > level) & (labels == 1)).sum() / ((pixels > level).sum() + labels.sum())
        for level in range(10_000, 60_000, 1000)
    ]
    assert max(dice) < 0.5


@pytest.mark.parametrize("scene", ["shapes", "cells"])
def test_the_same_seed_repeats_a_scene(tmp_path: Path, scene: str) -> None:
    first, again, other, any_seed, any_other = (
        digest(multiseg.create_images(tmp_path / name, scene=scene, count=4, grid=1, seed=seed))
        for name, seed in (("a", 3), ("b", 3), ("c", 4), ("d", None), ("e", None))
    )
    assert first == again
    assert len({first, other, any_seed, any_other}) == 4


@pytest.mark.parametrize("scene", ["shapes", "cells"])
def test_more_images_begin_with_the_same_ones(tmp_path: Path, scene: str) -> None:
    few = multiseg.create_images(tmp_path / "few", scene=scene, count=2, grid=1, seed=3)
    more = multiseg.create_images(tmp_path / "more", scene=scene, count=5, grid=1, seed=3)
    for path in few.rglob("0*.png"):
        assert path.read_bytes() == (more / path.relative_to(few)).read_bytes()


def test_scenes_become_datasets(shapes: Path, cells: Path, tmp_path: Path) -> None:
    for images_folder, names, ignored in ((shapes, SHAPES, 255), (cells, ["tissue", "cell"], 255)):
        dataset = multiseg.Dataset.create(
            tmp_path / names[1],
            input=images_folder / "input",
            target=images_folder / "target",
            labels="classes",
            classes=images_folder / "classes.txt",
            seed=1,
        )
        assert list(dataset.labels.names) == names
        assert dataset.labels.ignore == ignored
    assert dataset.train[0][0].dtype == np.float32


def test_an_unknown_scene_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="scene='street': choose one of triangles, shapes, cells"):
        multiseg.create_images(tmp_path / "out", scene="street")
    with pytest.raises(SettingsError, match="size=8: must be a whole number from 16"):
        multiseg.create_images(tmp_path / "out", scene="shapes", size=8)
    assert list(tmp_path.iterdir()) == []
