"""Which files of a folder become a dataset: all image formats, nothing hidden, names in either normal form of Unicode."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multiseg import Dataset
from multiseg.errors import ImageError
from multiseg.images import load_image


def pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (4, 6), np.uint8)


def folders(parent: Path, names: list[str], **save: Any) -> Path:
    for kind, offset in (("input", 0), ("target", 100)):
        for number, name in enumerate(names):
            path = parent / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(number + offset)).save(path, **save)
    return parent


def create(source: Path) -> Dataset:
    return Dataset.create(
        source / "dataset", input=source / "input", target=source / "target", val_percent=0, seed=1, workers=1
    )


def test_every_format_is_read(tmp_path: Path) -> None:
    """Lossless ones keep each value; none of the pairs is left out."""
    names = ["a.png", "b.tif", "c.TIFF", "d.bmp", "e.pgm"]
    folders(tmp_path, names)
    for kind, offset in (("input", 0), ("target", 100)):
        image = Image.fromarray(np.stack([pixels(9 + offset)] * 3, axis=2))
        image.convert("L").save(tmp_path / kind / "f.webp", lossless=True)
    dataset = Dataset.create(
        tmp_path / "dataset", input=tmp_path / "input", target=tmp_path / "target", val_percent=0, seed=1, workers=1,
        channels="L",
    )  # fmt: skip
    assert len(dataset.train) == 6
    stored = {dataset.train[index][0].tobytes() for index in range(6)}
    assert {pixels(number).tobytes() for number in range(5)} <= stored


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    shown = ["0.png", "sub/1.png"]
    folders(tmp_path, [*shown, ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/2.png", "._0.png", ".hidden.png"])
    dataset = create(tmp_path)
    assert len(dataset.train) == len(shown)
    assert {dataset.train[index][0].tobytes() for index in range(2)} == {pixels(0).tobytes(), pixels(1).tobytes()}


def test_names_in_another_normal_form_are_partners(tmp_path: Path) -> None:
    """macOS stores é as e and an accent, other systems as one character."""
    folders(tmp_path, [unicodedata.normalize("NFC", "café.png"), "b.png"])
    target = tmp_path / "target" / unicodedata.normalize("NFC", "café.png")
    target.rename(target.with_name(unicodedata.normalize("NFD", "café.png")))
    dataset = create(tmp_path)
    pairs = {feature.tobytes(): label.tobytes() for feature, label in (dataset.train[index] for index in range(2))}
    assert pairs == {pixels(number).tobytes(): pixels(number + 100).tobytes() for number in range(2)}


def test_a_many_paged_tiff_is_named(tmp_path: Path) -> None:
    page = Image.fromarray(pixels(1))
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[Image.fromarray(pixels(2))])
    with pytest.raises(ImageError, match=r"pages\.tif: contains several images; save each one as a file"):
        load_image(tmp_path / "pages.tif")
