"""The standard deviation of the images of a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiseg import Dataset
from multiseg.dataset.deviation import standard_deviation
from multiseg.dataset.fitting import std_of
from multiseg.errors import SettingsError


def test_it_is_that_of_all_pixels_of_images_of_mixed_sizes(tmp_path: Path) -> None:
    """NumPy's std over all pixels at once is the reference; a large offset shows that sums do not cancel."""
    draw, pixels = np.random.default_rng(1), []
    for name in ("input", "target"):
        (tmp_path / name).mkdir()
    for number, (height, width) in enumerate([(8, 8), (5, 9), (1, 1), (12, 7)]):
        image = (1e6 + draw.normal(0, [[[1]], [[5]], [[0.25]]], (3, height, width))).astype(np.float32)
        np.save(tmp_path / "input" / f"{number}.npy", image)
        np.save(tmp_path / "target" / f"{number}.npy", np.zeros((height, width), np.uint8))
        pixels.append(image.reshape(3, -1).astype(np.float64))
    dataset = Dataset.create(
        tmp_path / "out", input=tmp_path / "input", target=tmp_path / "target", val_percent=0, mixed_sizes=True
    )
    assert standard_deviation(dataset.train) == pytest.approx(np.hstack(pixels).std(axis=1), rel=1e-9)


def test_a_channel_of_one_value_is_refused(tmp_path: Path) -> None:
    for name in ("input", "target"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / name / "0.png")
    dataset = Dataset.create(tmp_path / "out", input=tmp_path / "input", target=tmp_path / "target", val_percent=0)
    with pytest.raises(
        SettingsError, match=r"divide_std='dataset': channel 0 of the training images .* one value only"
    ):
        std_of(dataset, "dataset")
