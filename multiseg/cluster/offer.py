"""Determine a worker's backends, cores and GPUs, and announce them as Dask's resources. Runs in the worker."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Status, Worker

from multiseg._version import __version__
from multiseg.worker.status import backends

CORES, GPU = "cores", "GPU"  # the names used in Dask's documentation


def resource(backend: str) -> str:
    """Return the name of the resource of workers that can run this backend in this version of multiseg."""
    return f"multiseg-{__version__}-{backend}"


async def look(dask_worker: Worker) -> dict[str, Any]:
    """Return what a worker offers: ``multiseg`` (its version), ``cores``, ``gpus``, and ``backends``, a dict that maps each
    name to None if it can run, else to the problem.

    Frameworks are loaded once per worker, in separate processes. Resources specified when the worker was started take
    precedence.
    """
    offered: dict[str, Any] | None = getattr(dask_worker, _CACHE_ATTRIBUTE, None)
    if offered is None:
        statuses = await asyncio.to_thread(backends)
        resources = dict(dask_worker.state.total_resources)
        # a worker started by dask-cuda has one GPU, as does one with CUDA_VISIBLE_DEVICES
        gpu = any(status.available and status.device not in (None, "cpu") for status in statuses)
        problems = {status.name: status.problem for status in statuses}
        excluded = [name for name in problems if resources.get(resource(name)) == 0]
        problems |= {name: "was started without it (--resources)" for name in excluded}
        offered = {
            "multiseg": __version__,
            "cores": int(resources.get(CORES, dask_worker.state.nthreads)),
            "gpus": int(resources.get(GPU, gpu)),
            "backends": problems,
        }
        setattr(dask_worker, _CACHE_ATTRIBUTE, offered)
    return offered


_CACHE_ATTRIBUTE = "_multiseg_offer"


async def announce(dask_worker: Worker) -> None:
    """Set a worker's resources, and make the scheduler reconsider jobs that no worker could run."""
    offered, resources = await look(dask_worker), dask_worker.state.total_resources
    announced = {CORES: offered["cores"], GPU: offered["gpus"]}
    announced |= {resource(name): offered["cores"] for name, problem in offered["backends"].items() if problem is None}
    new = {key: count for key, count in announced.items() if key not in resources}
    if not new:
        return
    await dask_worker.set_resources(**new)
    # the scheduler reconsiders waiting jobs only when a worker joins or resumes, so pause and resume it
    if dask_worker.status == Status.running:
        dask_worker.status = Status.paused
        dask_worker.status = Status.running
