"""Whole trainings of the recipe `equal`: backends end closer to each other than seeds of one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

import multiseg

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")


def test_backends_differ_by_less_than_seeds(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    trainings = [("caffe", 1), ("tensorflow", 1), ("torch", 1), ("torch", 2), ("torch", 3)]
    runs = []
    for backend, seed in trainings:
        job = multiseg.Job(
            dataset=dataset, backend=backend, recipe="equal", epochs=2, seed=seed, threads=1, keep="last"
        )
        runs.append(job.train(tmp_path / f"{backend}-{seed}", progress=False))
    comparison = multiseg.compare(runs, images=0)
    found = comparison.agreement
    assert found is not None
    assert len(found.runs) == 5
    assert {each.run.backend for each in found.judge} == {"torch"}
    assert [measure.metric.key for measure in found.measures] == [
        "val_loss",
        "l1",
        "l2",
        "pixel_accuracy",
        "iou",
        "dice",
    ]
    # 14 steps of float32 sums in another order each: a few 1e-7 of the value; another seed is another start and order of batches
    assert comparison.check(within_seeds=0.01) == []
    l1 = next(measure for measure in found.measures if measure.metric.key == "l1")
    assert l1.widest.relative < 1e-6
    assert l1.last.spread > 1e-4
    assert comparison.check(within_seeds=1e-12)
