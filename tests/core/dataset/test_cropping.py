"""Crops and scales of images with their labels: slices and bilinear sums by hand are the references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from multiseg.dataset.augmentation import Augmentation, Augmented
from multiseg.dataset.cropping import CentreCrop, Crop, crop_problems, crop_shapes, read_size
from multiseg.errors import DatasetError, SettingsError

DRAW = np.random.default_rng(7)


def numbered(height: int, width: int) -> Any:
    """An image whose two channels are the row and the column of each pixel, so that places can be read off."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns]).astype(np.uint8)


def augmented(settings: dict[str, Any], crop: Crop, features: Any, labels: Any, epoch: int = 0) -> tuple[Any, Any]:
    features, cropped = Augmented(Augmentation.of(settings), 3, epoch, crop)(features, labels, np.arange(len(features)))
    assert cropped is not None
    return features, cropped


def test_crops_are_slices_at_every_place_and_labels_the_same_slices() -> None:
    image = numbered(9, 12)
    labels = DRAW.integers(0, 5, (1, 9, 12), dtype=np.uint8)
    features, cropped = augmented({}, Crop((6, 7), (0, 0), 255), [image] * 400, [labels] * 400)
    assert features.shape == (400, 2, 6, 7) and features.dtype == np.uint8
    corners = set()
    for feature, label in zip(features, cropped, strict=True):
        top, left = map(int, feature[:, 0, 0])
        assert np.array_equal(feature, image[:, top : top + 6, left : left + 7])
        assert np.array_equal(label, labels[:, top : top + 6, left : left + 7])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(4) for left in range(6)}  # 24 places in 400 draws


def test_smaller_images_are_filled_with_the_mean_and_the_ignored_label() -> None:
    image, label = numbered(4, 5), np.ones((1, 4, 5), np.uint8)
    features, labels = augmented({}, Crop((6, 7), (100.4, 20.6), 255), [image], [label])
    assert np.array_equal(features[0, :, :4, :5], image) and (labels[0, 0, :4, :5] == 1).all()
    outside = np.ones((6, 7), bool)
    outside[:4, :5] = False
    assert (labels[0, 0][outside] == 255).all()
    assert (features[0, 0][outside] == 100).all() and (features[0, 1][outside] == 21).all()  # 8-bit images are rounded
    floats, _ = augmented({}, Crop((6, 7), (100.4, 20.6), 255), [image.astype(np.float32)], [label])
    assert floats[0, 0][outside] == pytest.approx(100.4)
    wide = augmented({}, Crop((6, 7), (0, 0), 1000), [image], [label])[1]
    assert wide[0, 0, 5, 6] == 1000  # a label that 8 bits do not hold


def test_without_an_ignored_label_the_border_is_repeated() -> None:
    image, label = numbered(4, 5), DRAW.integers(0, 3, (1, 4, 5), dtype=np.uint8)
    features, labels = augmented({}, Crop((6, 7)), [image], [label])
    assert np.array_equal(features[0], np.pad(image, ((0, 0), (0, 2), (0, 2)), mode="edge"))
    assert np.array_equal(labels[0], np.pad(label, ((0, 0), (0, 2), (0, 2)), mode="edge"))


def test_images_of_mixed_sizes_form_a_batch() -> None:
    sizes = [(9, 12), (4, 5), (20, 6)]
    features, labels = augmented(
        {"flip": "both", "brightness": 0.2}, Crop((6, 7), (0, 0), 255),
        [numbered(*size) for size in sizes], [np.zeros((1, *size), np.uint8) for size in sizes],
    )  # fmt: skip
    assert features.shape == (3, 2, 6, 7) and labels.shape == (3, 1, 6, 7)


def bilinear(image: Any, y: float, x: float, reach: tuple[float, float]) -> Any:
    """The sum of the pixels whose middles are less than ``reach`` from a place, weighted by how near they are."""
    weights = []
    for place, length, most in zip((y, x), image.shape[1:], reach, strict=True):
        near = np.clip(1 - np.abs(np.arange(length) + 0.5 - place) / most, 0, None)
        weights.append(near / near.sum())
    return np.einsum("chw,h,w->c", image, *weights)


@pytest.mark.parametrize("factor", [0.3, 0.5, 0.8, 1.7])
def test_scaled_crops_are_bilinear_and_labels_nearest_at_the_same_places(factor: float) -> None:
    """Both axes of the source place of each pixel are read from float ramps; outside of the image both are filled."""
    height, width, crop = 30, 40, (25, 26)
    image = DRAW.uniform(0, 255, (2, height, width)).astype(np.float32)
    labels = DRAW.integers(0, 20, (1, height, width), dtype=np.uint8)
    new = (round(height * factor), round(width * factor))
    seen = set()
    for epoch in range(20):
        features, cropped = augmented({"scale": [factor, factor]}, Crop(crop, (7, 8), 255), [image], [labels], epoch)
        ramps, _ = augmented(
            {"scale": [factor, factor]}, Crop(crop, (-1, -1), 255),
            [np.stack(np.mgrid[:height, :width]).astype(np.float32) + 0.5], [labels], epoch,
        )  # fmt: skip
        inside = cropped[0, 0] != 255
        rows, columns = np.nonzero(inside)
        assert inside.sum() == min(crop[0], new[0]) * min(crop[1], new[1]) == (rows.max() + 1) * (columns.max() + 1)
        assert (features[0, 0][~inside] == 7).all() and (features[0, 1][~inside] == 8).all()
        # the first row and column of the crop in the scaled image, from the ramp in the middle of the crop
        middle = crop[0] // 4, crop[1] // 4
        top = round(ramps[0, 0][middle] * new[0] / height - 0.5 - middle[0])
        left = round(ramps[0, 1][middle] * new[1] / width - 0.5 - middle[1])
        seen.add((top, left))
        for row, column in zip(rows[::17], columns[::17], strict=True):
            y, x = (row + top + 0.5) * height / new[0], (column + left + 0.5) * width / new[1]
            expected = bilinear(image, y, x, (max(1, height / new[0]), max(1, width / new[1])))
            assert features[0, :, row, column] == pytest.approx(expected, abs=1e-3)
            if min(abs(y - round(y)), abs(x - round(x))) > 1e-6:  # not exactly between two pixels
                assert cropped[0, 0, row, column] == labels[0, int(y), int(x)]
    assert len(seen) > (5 if factor > 1 else 0)


@pytest.mark.parametrize("factor", [0.6, 1.3])
def test_scaled_crops_of_8_bits_are_those_of_the_whole_scaled_image(factor: float) -> None:
    """Pillow resizes the whole image, of which each crop is a part."""
    whole = DRAW.integers(0, 256, (33, 47), dtype=np.uint8)
    size = round(47 * factor), round(33 * factor)
    scaled = np.asarray(Image.fromarray(whole).resize(size, Image.Resampling.BILINEAR))
    parts = np.lib.stride_tricks.sliding_window_view(scaled, (15, 17)).reshape(-1, 15, 17).astype(int)
    for epoch in range(20):
        features, _ = augmented({"scale": [factor, factor]}, Crop((15, 17)), [whole[None]], [whole[None]], epoch)
        assert np.abs(parts - features[0, 0]).max(axis=(1, 2)).min() <= 1


def test_the_range_of_a_scale_is_drawn_evenly_on_a_logarithmic_axis() -> None:
    """An image of white on black ignored surroundings shows its scaled size."""
    image, label = np.full((1, 20, 20), 255, np.uint8), np.ones((1, 20, 20), np.uint8)
    _, labels = augmented({"scale": [0.5, 2]}, Crop((50, 50), (0,), 0), [image] * 300, [label] * 300)
    sides = np.sqrt((labels == 1).sum((1, 2, 3)))
    assert sides.min() >= 10 and sides.max() <= 40 and sides.min() < 11 and sides.max() > 38
    assert np.median(sides) == pytest.approx(20, abs=2.5)


def test_rotated_crops_never_have_a_class_that_was_not_there() -> None:
    mask = np.where(DRAW.random((1, 40, 40)) > 0.5, 9, 3).astype(np.uint8)
    settings = {"rotation": 180, "scale": [0.4, 2.5], "translation": 0.3, "flip": "both", "quarter_turns": True}
    _, labels = augmented(settings, Crop((32, 48), (0,), 77), [mask] * 60, [mask] * 60)
    assert set(np.unique(labels)) == {3, 9, 77}
    _, labels = augmented(settings, Crop((32, 48)), [mask] * 60, [mask] * 60)
    assert set(np.unique(labels)) == {3, 9}


def test_labels_of_half_the_size_are_cropped_at_the_same_places() -> None:
    image = numbered(16, 20)
    label = image[:, ::2, ::2] // 2
    features, labels = augmented({}, Crop((6, 8), (0, 0), 255), [image] * 50, [label] * 50)
    assert labels.shape == (50, 2, 3, 4)
    assert np.array_equal(features[:, :, ::2, ::2] // 2, labels)
    smooth = np.repeat(np.repeat(label, 2, 1), 2, 2)  # each label stands for four equal pixels
    features, labels = augmented({"scale": [2, 2]}, Crop((12, 16), (0, 0), 255), [smooth] * 50, [label] * 50)
    assert np.abs(features[:, :, 1::2, 1::2].astype(int) - labels).max() <= 1


def test_labels_of_whole_images_are_not_cropped() -> None:
    label = np.full((1, 1, 1), 4, np.int32)
    for settings in ({}, {"rotation": 20}):
        features, labels = augmented(settings, Crop((6, 7)), [numbered(9, 12)] * 3, [label] * 3)
        assert features.shape == (3, 2, 6, 7) and (labels == 4).all() and labels.shape == (3, 1, 1, 1)


def test_the_central_crop_is_that_of_caffe_rounded_down() -> None:
    image, label = numbered(9, 12), numbered(9, 12)[:1]
    features, labels = CentreCrop((6, 7), "val_db")([image], [label], np.arange(1))
    assert np.array_equal(features[0], image[:, 1:7, 2:9])  # (9 - 6) / 2 = 1, (12 - 7) / 2 = 2
    assert labels is not None and np.array_equal(labels[0], label[:, 1:7, 2:9])
    assert CentreCrop((6, 7), "val_db")([image], None, np.arange(1))[1] is None
    with pytest.raises(
        DatasetError, match=r"val_db: image 3 is 9x12 pixels \(height x width\), smaller than .* of 10x7"
    ):
        CentreCrop((10, 7), "val_db")([image], [label], np.array([3]))


@pytest.mark.parametrize(
    ("value", "size"),
    [(8, (8, 8)), ("8", (8, 8)), ("8x10", (8, 10)), ((8, 10), (8, 10)), ([8, 10], (8, 10)), ("none", None)],
)
def test_sizes_are_read(value: Any, size: Any) -> None:
    assert read_size(value) == size


@pytest.mark.parametrize(
    "value", [0, -1, "8x", "x8", "8x9x10", "a", 8.5, True, [8, 9, 10], [], None, [8.0, 9.0], "8 x -1"]
)
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        read_size(value)


def test_sizes_that_do_not_suit_the_labels_are_refused() -> None:
    assert crop_shapes((6, 8), (3, 16, 20), (1, 8, 10)) == ((3, 6, 8), (1, 3, 4))
    assert crop_shapes((6, 8), (3, 16, 20), (1, 1, 1)) == ((3, 6, 8), (1, 1, 1))
    assert not crop_problems("crop", (6, 8), (3, 16, 20), (1, 8, 10))
    for size, shapes, words in (
        (
            (6, 7),
            ((3, 16, 20), (1, 8, 10)),
            "crop='6x7': labels are 8x10 pixels (height x width) for images of 16x20; choose",
        ),
        ((6, 27), ((3, 16, 20), (1, 1, 1)), "crop='6x27': is larger than the images (16x20, height x width)"),
    ):
        (problem,) = crop_problems("crop", size, *shapes)
        assert str(SettingsError(problem)).startswith(words)
