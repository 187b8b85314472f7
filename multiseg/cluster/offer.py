"""What a Dask worker offers: its backends, cores and GPUs, announced as Dask's resources. Runs in the worker."""

from __future__ import annotations

import asyncio
from typing import Any

from distributed import Status, Worker

from multiseg._version import __version__
from multiseg.worker.status import backends

CORES, GPU = "cores", "GPU"  # Dask's documentation names them so


def resource(backend: str) -> str:
    """The name of the resource that a worker has where this version's backend can run."""
    return f"multiseg-{__version__}-{backend}"


async def look(dask_worker: Worker) -> dict[str, Any]:
    """What a worker offers: ``multiseg`` (its version), ``cores``, ``gpus``, and ``backends``: by name, None where it
    can run, else the problem.

    The frameworks are loaded once in a worker's life, in processes of their own. Resources that it was started with count.
    """
    found: dict[str, Any] | None = getattr(dask_worker, _KEPT, None)
    if found is None:
        statuses = await asyncio.to_thread(backends)
        own = dict(dask_worker.state.total_resources)
        # one that dask-cuda started has one GPU; CUDA_VISIBLE_DEVICES says the same elsewhere
        gpu = any(each.available and each.device not in (None, "cpu") for each in statuses)
        problems = {each.name: each.problem for each in statuses}
        problems |= {name: "was started without it (--resources)" for name in problems if own.get(resource(name)) == 0}
        found = {
            "multiseg": __version__,
            "cores": int(own.get(CORES, dask_worker.state.nthreads)),
            "gpus": int(own.get(GPU, gpu)),
            "backends": problems,
        }
        setattr(dask_worker, _KEPT, found)
    return found


_KEPT = "_multiseg_offer"


async def announce(dask_worker: Worker) -> None:
    """Give a worker its resources, and have the scheduler look again for jobs that nobody could run."""
    offered, own = await look(dask_worker), dask_worker.state.total_resources
    found = {CORES: offered["cores"], GPU: offered["gpus"]}
    found |= {resource(name): offered["cores"] for name, problem in offered["backends"].items() if problem is None}
    new = {key: count for key, count in found.items() if key not in own}
    if not new:
        return
    await dask_worker.set_resources(**new)
    # the scheduler does so when a worker comes, which this one has, or comes back
    if dask_worker.status == Status.running:
        dask_worker.status = Status.paused
        dask_worker.status = Status.running
