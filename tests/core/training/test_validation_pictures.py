"""The pictures of the first validation images that a training keeps for those who watch it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiseg.dataset.foreground import BINARY, DARK, Foreground
from multiseg.dataset.labels import Labels
from multiseg.network import CLASSES, IMAGES
from multiseg.training.validation_pictures import COUNT, ValidationPictures

FEATURE = np.full((1, 4, 6), 100, np.uint8)


def pictures(
    folder: Path, target: np.ndarray, outputs: np.ndarray, labels: Labels, foreground: Foreground
) -> list[str]:
    """Write the pictures of two validations of batches of three images that are all alike, and return the files' names."""
    kept = ValidationPictures(folder, [(FEATURE, target)] * 6, labels, foreground, None)
    for _ in range(2):
        kept.begin()
        for _ in range(2):
            kept.add(np.stack([outputs] * 3))
    return sorted(path.name for path in (folder / "pictures").iterdir())


def pixel(folder: Path, name: str) -> int | tuple[int, ...]:
    with Image.open(folder / "pictures" / name) as image:
        value = image.getpixel((0, 0))
    assert value is not None and not isinstance(value, float)
    return value


@pytest.mark.parametrize(
    ("target", "output", "foreground", "shown"),
    [
        (255, 51.0, DARK, (255, 51)),
        (1, 0.2, BINARY, (255, 51)),  # masks of 0 and 1 are drawn up to white
        (1, np.log(0.2 / 0.8), replace(BINARY, output_threshold=0.0), (255, 51)),  # the logit of 0.2
        (1, -1e4, replace(BINARY, output_threshold=0.0), (255, 0)),
    ],
)
def test_targets_and_outputs_of_images(
    tmp_path: Path, target: int, output: float, foreground: Foreground, shown: tuple[int, int]
) -> None:
    mask, values = np.full((1, 4, 6), target, np.uint8), np.full((1, 4, 6), output, np.float32)
    names = pictures(tmp_path, mask, values, Labels(IMAGES), foreground)
    assert names == sorted(f"{index}-{kind}.png" for index in range(COUNT) for kind in ("input", "target", "output"))
    assert (pixel(tmp_path, "3-target.png"), pixel(tmp_path, "3-output.png")) == shown
    assert pixel(tmp_path, "0-input.png") == 100


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_classes_are_overlays_of_their_colours(tmp_path: Path, dtype: type) -> None:
    labels = Labels(CLASSES, names=("ground", "sky"), colours=((0, 0, 0), (0, 0, 200)))
    scores = np.stack([np.zeros((4, 6)), np.ones((4, 6))]).astype(np.float32)
    pictures(tmp_path, np.ones((1, 4, 6), dtype), scores, labels, BINARY)
    # half of grey 100, half of the class's colour, up to Pillow's rounding
    assert pixel(tmp_path, "0-output.png") == pytest.approx((50, 50, 150), abs=1)
    assert pixel(tmp_path, "0-target.png") == pixel(tmp_path, "0-output.png")


def test_what_is_no_picture_does_not_stop_the_training(tmp_path: Path) -> None:
    outputs = np.zeros((2, 4, 6), np.float32)  # neither grey nor colours
    assert not any("output" in name for name in pictures(tmp_path, FEATURE, outputs, Labels(IMAGES), DARK))
    whole = ValidationPictures(tmp_path / "none", [(FEATURE, FEATURE)], Labels(CLASSES), DARK, None)
    whole.add(np.zeros((1, 10, 1, 1), np.float32))
    assert not (tmp_path / "none").exists()
