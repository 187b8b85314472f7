"""Metrics of images, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from multiseg.settings.metrics import ImageSums, selecting


def test_metrics_against_a_count_by_hand() -> None:
    metrics = ImageSums()
    # target: two object pixels; output: finds one of them, and a third that is none
    metrics.add(np.array([[[[0.0, 200.0, 100.0, 255.0]]]]), np.array([[[[0, 0, 255, 255]]]]))
    result = metrics.scores()
    assert result["l1"] == pytest.approx((0 + 200 + 155 + 0) / 4)
    assert result["l2"] == pytest.approx((200**2 + 155**2) / 4)
    assert result["pixel_accuracy"] == 0.5
    assert result["iou"] == pytest.approx(1 / 3)
    assert result["dice"] == pytest.approx(2 * 1 / (2 + 2))


def test_dice_of_sets_of_pixels() -> None:
    """2 |A and B| / (|A| + |B|) over sets of positions; 1 if both are empty."""
    draw = np.random.default_rng(4)
    for most in (256, 128, 1):  # foreground in both, foreground only, and then none
        outputs, targets = draw.integers(0, most, (2, 3, 1, 5, 5)) + (200 if most == 1 else 0)
        one, other = (set(map(tuple, np.argwhere(values < 128))) for values in (outputs, targets))
        sums = ImageSums()
        sums.add(outputs.astype(np.float32), targets)
        expected = 2 * len(one & other) / (len(one) + len(other)) if one or other else 1.0
        assert sums.scores()["dice"] == pytest.approx(expected)


def test_metrics_add_up_over_batches() -> None:
    draw = np.random.default_rng(0)
    outputs, targets = draw.normal(128, 80, (9, 1, 4, 4)), draw.integers(0, 256, (9, 1, 4, 4))
    whole, parts = ImageSums(), ImageSums()
    whole.add(outputs, targets)
    parts.add(outputs[:4], targets[:4])
    parts.add(outputs[4:], targets[4:])
    assert parts.scores() == pytest.approx(whole.scores())


def test_the_selecting_metric_is_that_of_the_last_validation() -> None:
    before, after = {"val_loss": 1.0, "l1": 0.5}, {"val_loss": 0.8, "l1": None}
    untested = {"val_loss": None, "l1": None}
    assert selecting("l1", [before, before, untested]) == "l1"
    assert (
        selecting("l1", [untested, after]) == selecting("l1", [before, after]) == "val_loss"
    )  # resumed in a newer version
    assert selecting("l1", []) == "val_loss"
