"""Training the small linear network in a backend's worker: batches, rates, and jobs whose options all show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from helpers.lending import lend
from helpers.linear_net import write_model
from helpers.neutral_math import Array
from multiseg import backend as registry
from multiseg.job.job import Job
from multiseg.training.preparation import network_spec
from multiseg.worker.client import Worker

SIZE = 8
U = 2.0**-24  # rounding to float32
# different for each parameter, so that a mix-up shows
MULTIPLIERS = {"*": {"decay": 1}, "conv1.*": {"lr": 0.5}, "*.bias": {"decay": 0}, "conv2.bias": {"lr": 2}}
FACTORS = {"conv1.weight": (0.5, 1), "conv1.bias": (0.5, 0), "conv2.weight": (1, 1), "conv2.bias": (2, 0)}
BASE = {"sgd": 0.05, "nesterov": 0.05, "adagrad": 0.1, "adadelta": 1.0, "ftrl": 0.2}  # rates; others 0.02
# large, so that its place in the formula shows
DELTA = {"adagrad": 0.05, "rmsprop": 0.05, "adadelta": 1e-3, "adam": 0.05}


def job_of(backend: str, solver: str, recipe: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a job, and the options that its solver then has."""
    delta = {"delta": DELTA[solver]} if recipe == "equal" and solver in DELTA else {}
    options = {"weight_decay": 0.01, **delta}
    settings = {"recipe": recipe, "solver": solver, "solver_options": options, "multipliers": MULTIPLIERS, "loss": "l2"}
    return settings, Job(dataset="", backend=backend, **settings).resolve().solver


class Workers:
    """One worker of each backend: starting a framework takes longer than these networks train."""

    def __init__(self) -> None:
        self.started: dict[str, Worker] = {}

    def load(
        self, dataset: Any, folder: Path, backend: str, channels: int = 1, norm: bool = False, **settings: Any
    ) -> Worker:
        """The backend's worker with the small network newly in it, for a job of these settings."""
        worker = self.of(backend)
        path = write_model(folder, backend, channels, norm)
        job = Job(
            dataset=dataset, backend=backend, model=path, **{"seed": 3, "threads": 1, "batch_size": 4, **settings}
        )
        shape = (channels, SIZE, SIZE)
        spec = replace(network_spec(job.resolve(), dataset), input_shape=shape, label_shape=shape)
        worker.described = worker.call("load", spec=spec.to_json())
        return worker

    def of(self, backend: str) -> Worker:
        """The backend's worker, with any network or none."""
        if backend not in self.started:
            self.started[backend] = lend(backend)
        return self.started[backend]


@contextmanager
def open_workers() -> Iterator[Workers]:
    """Workers that end with the block."""
    workers = Workers()
    try:
        yield workers
    finally:
        for worker in workers.started.values():
            worker.close()


def images(step: int, count: int = 4, scale: float = 1.0) -> tuple[Array, Array]:
    draw = np.random.default_rng(step)
    return draw.uniform(-1, 1, (count, 1, SIZE, SIZE)), scale * draw.uniform(-1, 1, (count, 1, SIZE, SIZE))


def train_step(worker: Worker, backend: str, x: Array, y: Array, rate: float) -> float:
    order = (0, 2, 3, 1) if registry.get(backend).data_order == "NHWC" else (0, 1, 2, 3)
    arrays = [np.ascontiguousarray(array.transpose(order), np.float32) for array in (x, y)]
    loss: float = worker.call("train_step", features=arrays[0], labels=arrays[1], rate=rate)
    return loss


def batch(step: int) -> tuple[Array, Array]:
    """Every fifth is smaller, as an epoch's last one is."""
    return images(step, 3 if step % 5 == 4 else 4)


def rate_of(step: int, base: float) -> float:
    """Rises and falls at every step."""
    return base * (1 + 0.5 * np.sin(step)) * (0.2 if step > 30 else 1)


def tolerance(way: Array, w: Array, steps: int) -> float:
    """What rounding may add up to: at each step that of the weight, and that of the gradient, a sum of 256 products.

    A sum of n terms errs by about the root of n roundings; how large it is shows in the way that the weight goes.
    """
    return U * (steps * float(np.abs(w).max()) + 16 * float(way.max()))
