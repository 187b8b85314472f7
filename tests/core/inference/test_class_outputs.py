"""Outputs of networks that score the classes of pixels: class pictures, overlays, datasets; the default palette."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import multiseg
from multiseg.dataset.class_colours import background, palette
from multiseg.dataset.foreground import Foreground, Side
from multiseg.dataset.label_tables import default_colours
from multiseg.dataset.labels import Labels
from multiseg.errors import ImageError, SettingsError
from multiseg.inference.output import Output
from multiseg.inference.outputs import save, save_overlay, writing
from multiseg.network import CLASSES
from multiseg.settings.confusion import Confusion

COLOURS = ((10, 20, 30), (200, 0, 0), (0, 200, 0))
LABELS = Labels(CLASSES, names=("background", "cat", "dog"), colours=COLOURS, ignore=255)


def output(labels: Labels = LABELS, classes: int = 3, height: int = 5, width: int = 7) -> Output:
    draw = np.random.default_rng(2)
    scores = draw.normal(0, 1, (classes, height, width)).astype(np.float32)
    return Output(scores, draw.integers(0, 256, (3, height, width), dtype=np.uint8), labels=labels)


def test_a_class_picture_holds_the_classes_and_their_colours(tmp_path: Path) -> None:
    result = output()
    expected = np.argmax(result.array, axis=0)
    assert result.classes.dtype == np.uint8 and np.array_equal(result.classes, expected)
    picture = Image.open(save(result, tmp_path / "a.png"))
    assert picture.mode == "P" and np.array_equal(np.asarray(picture), expected)
    assert np.array_equal(np.asarray(picture.convert("RGB")), np.array(COLOURS)[expected])
    for suffix in ("bmp", "tif"):
        assert np.array_equal(np.asarray(Image.open(save(result, tmp_path / f"a.{suffix}"))), expected)
    with pytest.raises(ImageError, match=r"a\.jpg: JPEG does not keep class indices; name it \.png"):
        save(result, tmp_path / "a.jpg")
    beside = np.asarray(Image.open(save(result, tmp_path / "b.png", show_input=True)))
    assert np.array_equal(beside[:, 8:], np.array(COLOURS)[expected])
    counted = {row["name"]: row["pixels"] for row in result.class_pixels()}
    assert counted == {name: int((expected == index).sum()) for index, name in enumerate(LABELS.names)}


def test_equal_scores_are_the_lowest_class_as_in_the_metrics() -> None:
    scores = np.zeros((4, 2, 2), np.float32)
    scores[2:] = 1
    assert (Output(scores, np.zeros((1, 2, 2), np.uint8), labels=LABELS).classes == 2).all()


@pytest.mark.parametrize(("side", "expected"), [("light", [[0, 1, 1]]), ("dark", [[0, 1, 1]])])
def test_one_channel_scores_two_classes(side: Side, expected: list[list[int]]) -> None:
    array = np.array([[[-0.1, 0, 7]]], np.float32)
    foreground = Foreground(side, 0.5, output_threshold=0)
    result = Output(array, np.zeros((1, 1, 3), np.uint8), labels=LABELS, foreground=foreground)
    assert result.classes.tolist() == expected


def test_an_overlay_blends_the_colours_over_the_input(tmp_path: Path) -> None:
    result = output()
    image = np.moveaxis(result.input, 0, -1).astype(float)
    coloured = np.array(COLOURS, float)[result.classes]
    blended = np.asarray(result.overlay(0.25), float)
    objects = result.classes > 0
    assert np.abs(blended - (0.75 * image + 0.25 * coloured))[objects].max() <= 1.5
    assert np.array_equal(blended[~objects], image[~objects])
    assert np.array_equal(np.asarray(result.overlay(0)), image)
    assert np.array_equal(np.asarray(result.overlay(1))[objects], coloured[objects])
    written = save_overlay(result, tmp_path / "a.png", 0.25)
    assert written == tmp_path / "a-overlay.png" and np.array_equal(np.asarray(Image.open(written)), blended)
    for opacity in (-0.1, 1.5):
        with pytest.raises(SettingsError, match=f"opacity={opacity}"):
            result.overlay(opacity)


def test_an_outline_is_opaque_and_within_its_region() -> None:
    scores = np.zeros((2, 12, 12), np.float32)
    scores[1, 3:9, 3:9] = 1
    result = Output(scores, np.full((1, 12, 12), 100, np.uint8), labels=LABELS)
    drawn = np.asarray(result.overlay(0, outline=2))
    border = np.zeros((12, 12), bool)
    border[3:9, 3:9] = True
    border[5:7, 5:7] = False
    assert (drawn[border] == COLOURS[1]).all() and (drawn[~border] == 100).all()


def test_a_small_input_is_enlarged_to_the_output() -> None:
    result = Output(np.ones((3, 8, 8), np.float32), np.full((1, 4, 4), 7, np.uint8), labels=LABELS)
    assert result.overlay(0).size == (8, 8)


def test_other_outputs_have_no_classes() -> None:
    image = Output(np.zeros((1, 4, 4), np.float32), np.zeros((1, 4, 4), np.uint8))
    with pytest.raises(ImageError, match="has no classes"):
        print(image.classes)
    with pytest.raises(ImageError, match="has no overlay"):
        image.overlay()
    many = Output(np.zeros((300, 2, 2), np.float32), np.zeros((1, 2, 2), np.uint8), labels=LABELS)
    with pytest.raises(ImageError, match=r"300 classes, a picture of classes has at most 256; write \.npy"):
        print(many.image)


def test_the_values_of_a_class_picture_are_not_stretched(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="pixel_conversion='normalize': is for pictures"):
        save(replace(output(), pixel_conversion="normalize"), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_predicted_classes_has_no_pictures(tmp_path: Path) -> None:
    result = Output(np.arange(3, dtype=np.float32).reshape(3, 1, 1), np.zeros((1, 4, 4), np.uint8), classifies=True)
    words = r"predictions\.csv: lists .* show_input=True is for pictures"
    with pytest.raises(SettingsError, match=words), writing(tmp_path / "a", "png", show_input=True) as write:
        write("x", result)
    with pytest.raises(ImageError, match="has no overlay"), writing(tmp_path / "b", "png", overlay=0.5) as write:
        write("x", result)
    assert [*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()] == []


def test_the_background_is_the_class_of_that_name() -> None:
    assert background(LABELS) == 0
    assert background(Labels(CLASSES, names=("sky", "Background"))) == 1
    assert background(Labels(CLASSES, names=("sky", "road"))) is None
    assert background(Labels(CLASSES)) == background(Labels(CLASSES, names=("0", "1"))) == 0


def test_a_dataset_of_class_outputs_has_class_labels(tmp_path: Path) -> None:
    results = [output(), output(height=5)]
    with writing(tmp_path / "out", "lmdb") as write:
        for number, result in enumerate(results):
            write(str(number), result)
    dataset = multiseg.Dataset.open(tmp_path / "out")
    assert dataset.labels == LABELS
    assert np.array_equal(dataset.train[1][1], results[1].classes[None])


def test_overlays_are_written_beside_the_outputs(tmp_path: Path) -> None:
    with writing(tmp_path, "png", overlay=0.5) as write:
        write("x", output())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x-overlay.png", "x.png"]


def test_the_palette_is_the_datasets_and_then_others() -> None:
    colours = palette(LABELS)
    assert colours[:3] == COLOURS and colours[255] == (224, 224, 192)
    assert len(colours) == 256 and len(set(colours)) == 256
    assert palette(Labels(CLASSES))[:22] == default_colours(22)


# Machado, Oliveira and Fernandes (2009), "A Physiologically-based Model for Simulation of Color Vision Deficiency", severity 1
DICHROMACY = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("vision", DICHROMACY)
def test_default_colours_are_told_apart_by_everybody(vision: str) -> None:
    lab = cielab(np.array(default_colours(22)), np.array(DICHROMACY[vision]))
    distance = np.sqrt(np.square(lab[:, None] - lab).sum(axis=-1))
    # a difference of 2.3 in CIELAB is just noticeable (Mahy et al., 1994)
    assert distance[np.triu_indices(22, 1)].min() > 6


def cielab(colours: npt.NDArray[np.int64], simulation: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return sRGB colours in CIELAB (D65, CIE 1976) after a simulation in linear RGB."""
    encoded = colours / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    xyz = np.clip(linear @ simulation.T, 0, 1) @ np.transpose(to_xyz) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def test_predicted_classes_are_counted_like_scores() -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(0, 1, (2, 4, 700, 500)).astype(np.float32)  # more pixels than are counted at once
    labels = draw.choice([0, 1, 2, 3, 9, 255], (2, 1, 700, 500)).astype(np.float32)
    of_scores, of_classes = Confusion(4, [255]), Confusion(4, [255])
    of_scores.add(scores, labels)
    of_classes.add_classes(scores.argmax(axis=1)[:, None], labels)
    expected = [
        [int(((labels[:, 0] == row) & (scores.argmax(axis=1) == column)).sum()) for column in range(4)]
        for row in range(4)
    ]
    assert of_scores.counts.tolist() == of_classes.counts.tolist() == expected
