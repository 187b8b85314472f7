"""What a Dask worker offers: its backends, cores and GPUs, announced as Dask's resources. Runs in the worker."""

from __future__ import annotations

import asyncio
import platform
from typing import Any

from distributed import Status, Worker, WorkerPlugin

import multiseg

CORES, GPU = "cores", "GPU"  # Dask's documentation names them so


def resource(backend: str) -> str:
    """The name of the resource that a worker has where the backend can run."""
    return f"multiseg-{backend}"


async def look(dask_worker: Worker) -> dict[str, Any]:
    """What a worker offers: ``multiseg`` (its version), ``host``, ``cores``, ``gpus``, and ``backends``: by name, None where it
    loads, else the problem. The frameworks are loaded once in a worker's life, in processes of their own."""
    found: dict[str, Any] | None = getattr(dask_worker, _KEPT, None)
    if found is None:
        statuses = await asyncio.to_thread(multiseg.backends)
        # one that dask-cuda started has one GPU; CUDA_VISIBLE_DEVICES says the same elsewhere
        gpu = any(each.available and each.device not in (None, "cpu") for each in statuses)
        found = {
            "multiseg": multiseg.__version__,
            "host": platform.node(),
            "cores": dask_worker.state.nthreads,
            "gpus": int(gpu),
            "backends": {each.name: each.problem for each in statuses},
        }
        setattr(dask_worker, _KEPT, found)
    return found


_KEPT = "_multiseg_offer"


class Announcing(WorkerPlugin):
    """Announces what a worker offers, each that is there and each that comes later."""

    name = "multiseg"
    idempotent = True

    async def setup(self, worker: Worker) -> None:
        """Give the worker its resources; such as it was started with count instead."""
        offered = await look(worker)
        slots = worker.state.nthreads
        found = {CORES: offered["cores"], GPU: offered["gpus"]}
        found |= {resource(name): slots for name, problem in offered["backends"].items() if problem is None}
        await worker.set_resources(
            **{key: count for key, count in found.items() if key not in worker.state.total_resources}
        )
        # the scheduler looks again for tasks that nobody could run when a worker comes, which it has, or comes back
        worker.status = Status.paused
        worker.status = Status.running
