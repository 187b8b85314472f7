"""Parity of a framework's layers for many images of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers import zoo

pytestmark = pytest.mark.needs("torch")


def test_all_images_are_compared_and_the_worst_one_is_kept(dataset: Any, tmp_path: Path) -> None:
    """Batches of 4, 4 and 2 images."""
    model = tmp_path / "net.prototxt"
    model.write_text((zoo.NETS / "autoencoder.prototxt").read_text())
    found = multiseg.check_parity(
        dataset, models=model, backends=["torch"], steps=0, batch_size=4, images=10, threads=1
    )  # fmt: skip
    assert found.ok, str(found)
    (side,) = found.sides
    layers = {row.name: row for row in found.rows if row.stage == "forward"}
    assert found.network is not None
    for name, row in layers.items():
        assert row.images == 10 and sum(row.histogram) == 10 * np.prod(found.network.shapes[name])
    worst = found.worst_images[side]
    assert worst.share == max(row.share for row in layers.values()) == layers[worst.layer].share
    assert layers[worst.layer].image == worst.index
    assert np.array_equal(worst.pixels, dataset.train[worst.index][0])
    assert {row.images for row in found.rows if row.stage != "forward"} == {None}
    page = found.to_html(tmp_path / "page.html").read_text()
    assert f"of 10 images, number {worst.index} is nearest to a bound" in page
