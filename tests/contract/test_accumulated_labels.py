"""Accumulated batches whose images have ignored labels: the update is that of one batch, or refused before training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multiseg import Dataset, Job
from multiseg.errors import SettingsError

NET = """
layer { name: "data" type: "Data" top: "data" exclude { stage: "deploy" } }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } }
layer { name: "data" type: "Input" top: "data" include { stage: "deploy" }
        input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 3 kernel_size: 3 pad: 1 } }
layer { name: "prob" type: "Softmax" bottom: "conv" top: "prob" include { stage: "deploy" } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss" LOSS exclude { stage: "deploy" } }
"""
VOID, IMAGES = 255, 4


def masks(folder: Path, rows: list[int]) -> Dataset:
    """Class indices 0 to 2, and VOID on the first rows of each mask."""
    draw = np.random.default_rng(1)
    for name, most in (("input", 10), ("target", 3), ("val_input", 10), ("val_target", 3)):
        (folder / name).mkdir()
        for number in range(IMAGES):
            pixels = draw.integers(0, most, (8, 8), dtype=np.uint8)
            if name.endswith("target"):
                pixels[: rows[number]] = VOID
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    images = {name: folder / name for name in ("input", "target", "val_input", "val_target")}
    return Dataset.create(folder / "dataset", **images, labels="classes", seed=1)


def job(dataset: Dataset, backend: str, folder: Path, options: str = "", **settings: Any) -> Job:
    """Return a job with the loss of a prototxt if it has options, else with the recipe's cross entropy."""
    (folder / "net.prototxt").write_text(NET.replace("LOSS", options))
    return Job(
        dataset=dataset, backend=backend, model=folder / "net.prototxt", epochs=2, val_batch_size=2, learning_rate=1e-3, seed=1,
        threads=1, ignore_index=VOID, lr_policy="fixed", recipe="tutorial" if options else "equal", metric="val_loss", **settings,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "loss", "more"),
    [
        ([0, 0, 0, 0], "", {"class_weights": [1, 5, 0.25]}),
        ([2, 2, 2, 2], "", {}),
        ([0, 7, 3, 1], "loss_param { normalization: BATCH_SIZE }", {}),
        ([0, 7, 3, 1], "", {"loss": "dice"}),
    ],
)
def test_the_update_is_that_of_one_batch(
    backend: str, rows: list[int], loss: str, more: dict[str, Any], tmp_path: Path
) -> None:
    """Where every image has as many counted labels, or the loss is not divided by them."""
    dataset, results = masks(tmp_path, rows), []
    for name, sizes in (("one", {"batch_size": 4}), ("two", {"batch_size": 2, "accumulate": 2})):
        settings = {**sizes, **more}
        with job(dataset, backend, tmp_path, loss, **settings).train(tmp_path / name, progress=False) as run:
            results.append((run.history[-1]["train_loss"], run.history[-1]["val_loss"]))
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def test_unequal_numbers_of_counted_labels_are_refused(backend: str, tmp_path: Path) -> None:
    dataset = masks(tmp_path, [0, 7, 3, 1])
    with pytest.raises(SettingsError) as raised:
        job(dataset, backend, tmp_path, batch_size=2, accumulate=2).train(tmp_path / "run", progress=False)
    message = str(raised.value)
    assert message.startswith("accumulate=2: ") and "choose batch_size=4 and accumulate=1" in message
    counts = {number for text in message.split("record ")[1:] for number in re.findall(r"^\d+: (\d+)", text)}
    assert counts <= {"64", "56", "40", "8"} and len(counts) == 2
    assert not (tmp_path / "run").exists()
    job(dataset, backend, tmp_path, batch_size=4).train(tmp_path / "run", progress=False).close()
