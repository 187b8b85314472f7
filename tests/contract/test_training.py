"""Trainings in the real frameworks: randomness, snapshots, resuming, stopping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import small_models

from multiseg import backend as registry
from multiseg.layout import Layout


def batch(backend: str, count: int = 8) -> dict[str, Any]:
    """Features and labels of ``count`` noise images, in the backend's layout."""
    declared = registry.get(backend)
    layout = Layout(declared.data_order, declared.channel_order, None)
    images = np.random.default_rng(7).integers(0, 256, (count, 1, 32, 32), dtype=np.uint8)
    return {"features": layout.features(images), "labels": layout.labels(images[::-1])}


def test_what_is_random_in_a_step_depends_on_its_seed_alone(backend: str, load: Any, tmp_path: Path) -> None:
    model = small_models.write(backend, tmp_path)
    worker = load(model=model, batch_size=8, learning_rate=1e-3, lr_policy="fixed")
    start = worker.call("get_weights")
    assert {name: value.shape for name, value in start.items()} == small_models.PARAMETERS

    def step(seed: int) -> tuple[float, dict[str, np.ndarray]]:
        worker.call("set_weights", weights=start)
        loss = worker.call("train_step", **batch(backend), rate=0.0, seed=seed)
        return loss, worker.call("get_weights")

    first, second, again = step(5)[0], step(6)[0], step(5)[0]
    assert first == again != second
    _, one, _ = worker.call("predict", **batch(backend))
    _, other, _ = worker.call("predict", **batch(backend))
    assert one == other  # nothing is random where nothing is learned
