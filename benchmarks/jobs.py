"""What the job machinery costs: a training's steps, with feed, messages, schedule, events and all, against bare steps.

Both run the same steps of the tutorial's network on the same batches, in the same worker and by turns, so that what else the
machine does hits both. Bare steps are calls of one batch that lies ready, one after the other, which a loop written by hand
would do at its best. Validation and snapshots are not counted on either side.

    python benchmarks/jobs.py [--backend NAME]... [--rounds 5] [--batch-size 4]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import multiseg
from multiseg import backend as registry
from multiseg.layout import Layout
from multiseg.loop import Loop
from multiseg.plan import Plan
from multiseg.run_folder import RunFolder
from multiseg.snapshots import Position
from multiseg.stopping import Stop
from multiseg.training import mean_of, network_spec
from multiseg.worker.client import Worker


def main() -> None:
    """Print one line for each backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", action="append", dest="backends", choices=registry.names())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        multiseg.create_images(where / "images", count=400, grid=1, seed=1)
        dataset = multiseg.Dataset.create(
            where / "dataset", input=where / "images/input", target=where / "images/target", seed=1
        )
        for name in options.backends or registry.names():
            bare, job = measure(name, dataset, where / name, options.rounds, options.batch_size)
            more = statistics.median(one / other - 1 for one, other in zip(job, bare, strict=True))
            print(
                f"{name:12} bare {1e3 * statistics.median(bare):7.2f} ms/step   job {1e3 * statistics.median(job):7.2f} ms/step"
                f"   overhead {100 * more:+.1f} %  (median of {options.rounds} pairs)",
                flush=True,
            )


def measure(
    name: str, dataset: multiseg.Dataset, folder: Path, rounds: int, batch_size: int
) -> tuple[list[float], list[float]]:
    """Seconds a step, bare and in a job, for each round of one epoch each."""
    settings = multiseg.Job(dataset=dataset, backend=name, epochs=rounds + 1, batch_size=batch_size, seed=1).resolve()
    backend = settings.backend
    layout = Layout(backend.data_order, backend.channel_order, mean_of(dataset, settings.subtract_mean))
    bare, job = [], []
    with Worker(backend, settings.threads) as worker:
        described: dict[str, Any] = worker.call("load", spec=network_spec(settings, dataset).to_json())
        settings.val_batch_size = described["val_batch_size"]
        plan = Plan(len(dataset.train), batch_size, rounds + 1, 1, 1)
        loop = Loop(settings, plan, dataset, layout, worker, RunFolder(folder), lambda event: None, Stop())
        features, labels = dataset.train.read(range(batch_size))
        batch = {"features": layout.features(features), "labels": layout.labels(labels)}
        for number in range(rounds + 1):
            began = time.perf_counter()
            for _ in range(plan.per_epoch):
                worker.call("train_step", **batch, rate=1e-9)
            between = time.perf_counter()
            loop.position = Position(number * plan.per_epoch)
            loop._steps((number + 1) * plan.per_epoch)
            ended = time.perf_counter()
            if number:  # the first round warms up
                bare.append((between - began) / plan.per_epoch)
                job.append((ended - between) / plan.per_epoch)
    return bare, job


if __name__ == "__main__":
    main()
