"""A dataset of class masks whose images have very different numbers of void pixels, and its cross entropy in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import multiseg

VOID = 255
Expected = Callable[[Any, Any, Any], float]  # of losses (N, H, W), which of them count, and labels (N, 1, H, W)


def void_masks(folder: Path, count: int = 22, size: int = 8) -> multiseg.Dataset:
    """Return a dataset of ``count`` images, half of them for validation: three classes, every other mask nearly all void."""
    draw = np.random.default_rng(5)
    for name in ("input", "target"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        mask = draw.integers(0, 3, (size, size), dtype=np.uint8)
        if number % 2:
            mask[1:] = VOID
        if number % 5 == 0:
            mask[:] = VOID
        image = (60 + 60 * (mask % 3) + draw.normal(0, 40, mask.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "input" / f"{number:03}.png")
        Image.fromarray(mask).save(folder / "target" / f"{number:03}.png")
    return multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=50, seed=1
    )


def check_loss_of_any_batch_size(job: multiseg.Job, folder: Path, expected: Expected) -> None:
    """Assert that history and test_db have the loss that ``expected`` computes of losses and counted labels, in any batches.

    ``job`` is on a dataset of :func:`void_masks`. Its validation has batches of 3.
    """
    dataset = multiseg.Dataset.open(job.dataset)
    with replace(job, epochs=1, val_batch_size=3, seed=1, threads=1).train(folder / "run", progress=False) as run:
        features, labels = dataset.val.read(range(len(dataset.val)))
        assert labels is not None
        value = expected(*losses(run.predict(features), labels), labels)
        assert run.history[-1]["val_loss"] == pytest.approx(value, rel=1e-5)
        for size in (1, 4, len(features)):
            tested = run.test_db(dataset.path / "val_db" / "features", batch_size=size)
            assert tested["val_loss"] == pytest.approx(value, rel=1e-5), size
        assert np.sum(tested["confusion"]) == (labels != VOID).sum()


def losses(scores: npt.NDArray[Any], labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the cross entropy (N, H, W) in float64 of scores (N, C, H, W), 0 where the label is void, and which labels count."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    counted = labels[:, 0] != VOID
    truth = np.where(labels == VOID, 0, labels).astype(int)
    return np.where(counted, -np.take_along_axis(logs, truth, axis=1)[:, 0], 0.0), counted
