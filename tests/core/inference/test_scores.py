"""The class of the highest score, against NumPy's argmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from multiseg.images.scores import highest


@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("classes", "kind"), [(1, "u1"), (2, "u1"), (11, "u1"), (33, "u1"), (256, "u1"), (257, "u2")])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int64])
def test_it_is_the_lowest_of_the_highest(classes: int, kind: str, dtype: Any, order: str) -> None:
    scores = np.random.default_rng(0).integers(-5, 5, (classes, 13, 17)).astype(dtype)  # with equal scores
    if order == "NHWC":
        scores = np.ascontiguousarray(scores.transpose(1, 2, 0)).transpose(2, 0, 1)
    result = highest(scores)
    assert result.dtype == np.dtype(kind)
    assert np.array_equal(result, scores.argmax(axis=0))


def test_large_images_are_compared_in_parts() -> None:
    draw = np.random.default_rng(1)
    for size in ((3, 700, 500), (3, 2, 70_000)):  # rows of more pixels than a part has
        scores = draw.normal(size=size).astype(np.float32)
        assert np.array_equal(highest(scores), scores.argmax(axis=0))


def test_infinite_scores_are_compared() -> None:
    scores = np.array([[[-np.inf, 0.0]], [[-np.inf, np.inf]], [[-1.0, np.inf]]])
    assert highest(scores).tolist() == [[2, 1]]
