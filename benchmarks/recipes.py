"""Measure the cost of the recipe `equal` in Caffe: a step of the tutorial's network with it and with `tutorial`, alternating.

python benchmarks/recipes.py
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import multiseg
from multiseg import backend as registry
from multiseg.training.preparation import network_spec
from multiseg.worker.client import Worker

ROUNDS, WARM = 60, 10


def main() -> None:
    """Print the median ratio of two steps in a row, for batches of 4 and 16."""
    with tempfile.TemporaryDirectory() as folder:
        images = multiseg.create_images(Path(folder) / "images", count=100, seed=1)
        dataset = multiseg.Dataset.create(
            Path(folder) / "dataset", input=images / "input", target=images / "target", seed=1
        )
        for batch_size in (4, 16):
            print(f"batch {batch_size}: equal takes {ratio(dataset, batch_size):.2f} of tutorial's time")


def ratio(dataset: multiseg.Dataset, batch_size: int) -> float:
    """Return the median ratio of a step with `equal` to the preceding one with `tutorial`."""
    with contextlib.ExitStack() as stack:
        workers = []
        for recipe in ("tutorial", "equal"):
            job = multiseg.Job(
                dataset=dataset, backend="caffe", recipe=recipe, loss="l2", batch_size=batch_size, seed=1
            )
            settings = job.resolve(dataset)
            worker = stack.enter_context(Worker(registry.get("caffe"), settings.threads))
            worker.call("load", spec=network_spec(settings, dataset).to_json())
            workers.append(worker)
        batch = np.random.default_rng(1).random((batch_size, 1, 32, 32), dtype=np.float32)
        ratios = []
        for _ in range(ROUNDS):
            took = []
            for worker in workers:
                began = time.perf_counter()
                worker.call("train_step", features=batch, labels=batch, rate=1e-9)
                took.append(time.perf_counter() - began)
            ratios.append(took[1] / took[0])
        return statistics.median(ratios[WARM:])


if __name__ == "__main__":
    main()
