"""Metrics of class indices against torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)

from multiseg.settings.confusion import Confusion
from multiseg.settings.metrics import scores_of

pytestmark = pytest.mark.needs("torch")

EXACT = 1e-6  # torchmetrics computes ratios in float32; the counts are compared exactly


@pytest.mark.parametrize("seed", range(6))
def test_metrics_equal_torchmetrics(seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores, labels = draw.normal(size=(4, 7, 9, 8)), draw.integers(0, 7, (4, 1, 9, 8))
    labels[draw.random(labels.shape) < 0.2] = 255
    labels[np.isin(labels, draw.integers(0, 7, seed))] = 0
    scores[:, draw.integers(0, 7, seed // 2)] = -9
    counts = Confusion(7, ignore=(255,))
    counts.add(scores, labels)
    predicted, truth = torch.from_numpy(scores.argmax(1)), torch.from_numpy(labels[:, 0])
    matrix = MulticlassConfusionMatrix(7, ignore_index=255)(predicted, truth)
    assert np.array_equal(counts.counts, matrix.numpy())
    result = scores_of(counts)
    for key, metric in {
        "pixel_accuracy": MulticlassAccuracy(7, average="micro", ignore_index=255),
        "mean_accuracy": MulticlassAccuracy(7, average="macro", ignore_index=255),
        "miou": MulticlassJaccardIndex(7, average="macro", ignore_index=255),
        "dice": MulticlassF1Score(7, average="macro", ignore_index=255),
        "fwiou": MulticlassJaccardIndex(7, average="weighted", ignore_index=255),
    }.items():
        assert result[key] == pytest.approx(float(metric(predicted, truth)), abs=EXACT), key
