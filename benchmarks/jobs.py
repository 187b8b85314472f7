"""What the job machinery costs: a training's steps, with feed, messages, schedule, events and all, against bare steps.

Both run the same steps of the tutorial's network on the same batches, in the same worker and by turns, so that what else the
machine does hits both. Bare steps are calls of one batch that lies ready, one after the other, which a loop written by hand
would do at its best. Validation and snapshots are not counted on either side. The program's own processor time is printed as
well (own): that much is the machinery's whatever else runs; on a busy machine the rest of the difference is others' work.

    python benchmarks/jobs.py [--backend NAME]... [--rounds 8] [--batch-size 4]
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
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        multiseg.create_images(where / "images", count=400, grid=1, seed=1)
        dataset = multiseg.Dataset.create(
            where / "dataset", input=where / "images/input", target=where / "images/target", seed=1
        )
        for name in options.backends or registry.names():
            bare, job, own = measure(name, dataset, where / name, options.rounds, options.batch_size)
            more = statistics.median(one / other - 1 for one, other in zip(job, bare, strict=True))
            print(
                f"{name:12} ms/step: bare {1e3 * statistics.median(bare):.2f} (best {1e3 * min(bare):.2f}), "
                f"job {1e3 * statistics.median(job):.2f} (best {1e3 * min(job):.2f}), own {1e3 * own:.2f}; overhead "
                f"{100 * more:+.1f} % (median of pairs), {100 * (min(job) / min(bare) - 1):+.1f} % (best), "
                f"{100 * own / statistics.median(bare):.1f} % (own)",
                flush=True,
            )


def measure(
    name: str, dataset: multiseg.Dataset, folder: Path, rounds: int, batch_size: int
) -> tuple[list[float], list[float], float]:
    """Seconds a step, bare and in a job, for each round of half an epoch; and the program's processor time a step of the job."""
    settings = multiseg.Job(dataset=dataset, backend=name, epochs=rounds, batch_size=batch_size, seed=1).resolve(
        dataset
    )
    backend = settings.backend
    layout = Layout(backend.data_order, backend.channel_order, mean_of(dataset, settings.subtract_mean))
    bare, job, own = [], [], 0.0
    with Worker(backend, settings.threads) as worker:
        described: dict[str, Any] = worker.call("load", spec=network_spec(settings, dataset).to_json())
        settings.val_batch_size = described["val_batch_size"]
        plan = Plan(len(dataset.train), batch_size, rounds, 1, 1)
        loop = Loop(settings, plan, dataset, layout, worker, RunFolder(folder), lambda event: None, Stop())
        features, labels = dataset.train.read(range(batch_size))
        batch = {"features": layout.features(features), "labels": layout.labels(labels)}
        steps = plan.per_epoch // 2
        for number in range(rounds + 1):
            began = time.perf_counter()
            for _ in range(steps):
                worker.call("train_step", **batch, rate=1e-9)
            between, before = time.perf_counter(), time.process_time()
            loop.position = Position(number * plan.per_epoch)
            loop._steps(number * plan.per_epoch + steps)
            ended = time.perf_counter()
            if number:  # the first round warms up
                bare.append((between - began) / steps)
                job.append((ended - between) / steps)
                own += (time.process_time() - before) / steps / rounds
    return bare, job, own


if __name__ == "__main__":
    main()
