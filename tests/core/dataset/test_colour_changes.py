"""Brightness, contrast and saturation: Pillow's ImageEnhance and formulas by hand are the references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from multiseg.dataset.augmentation import Augmentation, Augmented
from multiseg.dataset.colour_changes import change_colours

DRAW = np.random.default_rng(4)
PICTURE = DRAW.integers(0, 256, (3, 20, 30), dtype=np.uint8)
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.0, 0.4, 0.9, 1.3, 2.5])
def test_each_change_is_pillows(place: int, factor: float) -> None:
    factors = [1.0, 1.0, 1.0]
    factors[place] = factor
    ours = change_colours(PICTURE, factors)
    pillows = ENHANCERS[place](Image.fromarray(np.moveaxis(PICTURE, 0, 2))).enhance(factor)
    # Pillow rounds the grey values first and truncates the result
    assert np.abs(ours - np.moveaxis(np.asarray(pillows, np.float64), 2, 0)).max() <= 1 + 0.5 * abs(1 - factor) + 0.5


def test_grey_images_have_no_saturation() -> None:
    grey = PICTURE[:1]
    assert np.array_equal(change_colours(grey, [1, 1, 3]), grey)
    pillows = ImageEnhance.Contrast(Image.fromarray(grey[0])).enhance(0.5)
    assert np.abs(change_colours(grey, [1, 0.5, 1])[0] - np.asarray(pillows, np.float64)).max() <= 1.5


def test_other_values_change_in_their_own_range_and_are_not_clipped() -> None:
    depths = DRAW.uniform(500, 3400, (1, 8, 8)).astype(np.float32)
    exact = depths.astype(np.float64)
    low, mean = exact.min(), exact.mean()
    assert change_colours(depths, [2, 1, 1]) == pytest.approx(low + 2 * (exact - low), rel=1e-6)
    assert change_colours(depths, [1, 0.5, 1]) == pytest.approx(mean + 0.5 * (exact - mean), rel=1e-6)
    assert change_colours(depths, [2, 1, 1]).dtype == np.float32


def changed(settings: dict[str, Any], images: Any, epoch: int = 0) -> Any:
    return Augmented(Augmentation.of(settings), 1, epoch)(images, images.copy(), np.arange(len(images)))


@pytest.mark.parametrize(
    ("name", "most"), [("brightness", 0.3), ("contrast", 0.5), ("saturation", 0.9), ("contrast", 2.0)]
)
def test_factors_are_uniform_in_the_range_and_never_below_0(name: str, most: float) -> None:
    """The factor of each image is measured by least squares between the image and its degenerate version."""
    images = DRAW.uniform(0, 1000, (400, 3, 6, 6)).astype(np.float32)
    features, labels = changed({name: most}, images)
    assert np.array_equal(labels, images)
    grey = np.tensordot(images.astype(np.float64), np.array([0.299, 0.587, 0.114]), (1, 0))[:, None]
    base = {
        "brightness": images.min((1, 2, 3), keepdims=True),
        "contrast": grey.mean((1, 2, 3), keepdims=True),
        "saturation": grey,
    }[name]
    before, after = images - base, features - base
    factors = (before * after).sum((1, 2, 3)) / np.square(before).sum((1, 2, 3))
    assert factors.min() >= max(0.0, 1 - most) - 1e-5 and factors.max() <= 1 + most + 1e-5
    assert factors.max() > 1 + 0.9 * most and factors.min() < max(0.05, 1 - 0.9 * most)
    if most < 1:
        assert factors.mean() == pytest.approx(
            1, abs=4 * most / np.sqrt(3 * 400)
        )  # 4 standard errors of a uniform mean


def test_one_change_does_not_alter_the_numbers_of_the_others() -> None:
    images = DRAW.integers(60, 190, (20, 3, 16, 16), dtype=np.uint8)
    both, _ = changed({"brightness": 0.1, "flip": "both"}, images)
    flipped, _ = changed({"flip": "both"}, images)
    bright, _ = changed({"brightness": 0.1}, images)
    for index in range(20):
        ratio = (
            flipped[index].astype(float).sum() and both[index].astype(float).sum() / flipped[index].astype(float).sum()
        )
        assert ratio == pytest.approx(bright[index].astype(float).sum() / images[index].astype(float).sum(), rel=1e-9)
