"""Measure jobs per hour with 1, 2 and 3 Dask workers on this machine, and the overhead per job on a cluster.

python benchmarks/cluster.py [--jobs 6] [--images 1000] [--rounds 3]

Each job trains the tutorial's network for two epochs with one thread, alternating between its backends. The overhead is the
difference per job between a table of jobs trained one after the other by one worker, and without a cluster, in alternating runs;
also with 20 images, where little else remains. The workers have loaded the frameworks before.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from distributed import LocalCluster

import multiseg

BACKENDS = ("caffe", "torch", "tensorflow")


def table(folder: Path, images: int, count: int) -> dict[str, multiseg.Job]:
    """Return this number of jobs on a new dataset of this number of triangles."""
    made = multiseg.create_images(folder / f"images-{images}", count=images, seed=1)
    dataset = multiseg.Dataset.create(
        folder / f"dataset-{images}", input=made / "input", target=made / "target", seed=1
    )
    job = multiseg.Job(dataset=dataset.path, epochs=2, batch_size=min(16, len(dataset.train)), threads=1)
    return {f"{n}": replace(job, backend=BACKENDS[n % len(BACKENDS)], seed=n) for n in range(count)}


def seconds(jobs: dict[str, multiseg.Job], cluster: LocalCluster | None) -> float:
    """Return the seconds for training all jobs, on the cluster or here, one at a time on each worker."""
    with tempfile.TemporaryDirectory() as runs:
        began = time.perf_counter()
        outcomes = multiseg.train_jobs(jobs, runs, scheduler=cluster and cluster.scheduler_address)
        took = time.perf_counter() - began
    failed = [each for each in outcomes if each.status != "finished"]
    assert not failed, failed
    return took


def started(workers: int) -> LocalCluster:
    """Start a cluster of processes on loopback, whose workers have announced their resources."""
    cluster = LocalCluster(
        n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=logging.ERROR
    )
    return cluster


def main() -> None:
    """Print both figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs, tiny = table(folder, given.images, given.jobs), table(folder, 20, len(BACKENDS))
        for workers in (1, 2, 3):
            with started(workers) as cluster:
                seconds(tiny, cluster)
                took = statistics.median(seconds(jobs, cluster) for _ in range(given.rounds))
                print(f"{workers} workers: {3600 * len(jobs) / took:,.0f} jobs an hour, {took / len(jobs):.2f} s a job")
        with started(1) as cluster:
            for what, each in ((f"{given.images} images", jobs), ("20 images", tiny)):
                seconds(each, cluster)
                pairs = [(seconds(each, cluster), seconds(each, None)) for _ in range(given.rounds)]
                beyond = [(there - here) / len(each) for there, here in pairs]
                here = statistics.median(pair[1] for pair in pairs) / len(each)
                print(
                    f"{what}: {statistics.median(beyond):.2f} s a job beyond the {here:.2f} s that it takes without a cluster"
                )


if __name__ == "__main__":
    main()
