"""What a solver keeps moves from one framework to another, and a training goes on there as if it had always been there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linear_net import start_weights
from linear_training import BASE, Workers, batch, job_of, open_workers, rate_of, train_step
from rules import EQUAL, OWN

Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with open_workers() as workers:
        yield workers


class Trainings:
    """Steps of the small network with a solver in any backend, at a rate and with batches that depend on the step's number."""

    def __init__(self, workers: Workers, dataset: Any, folder: Path, solver: str, recipe: str) -> None:
        self.workers, self.dataset, self.folder = workers, dataset, folder
        self.solver, self.recipe = solver, recipe

    def train(
        self, backend: str, steps: range, weights: Weights | None = None, state: Weights | None = None
    ) -> tuple[Weights, Weights]:
        """Weights and state after these steps, from the given ones or from the very beginning."""
        settings, _ = job_of(backend, self.solver, self.recipe)
        worker = self.workers.load(self.dataset, self.folder, backend, **settings)
        worker.call("set_weights", weights=weights or start_weights(), state=state)
        for step in steps:
            train_step(worker, backend, *batch(step), rate_of(step, BASE.get(self.solver, 0.02)))
        return worker.call("get_weights"), worker.call("get_weights", state=True)


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def distance(one: Weights, other: Weights) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@pytest.mark.parametrize("recipe", ["tutorial", "equal"])
def test_in_one_framework_it_goes_on_to_the_bit(
    backend: str, workers: Workers, dataset: Any, tmp_path: Path, recipe: str
) -> None:
    for solver in OWN[backend] if recipe == "tutorial" else EQUAL:
        trainings = Trainings(workers, dataset, tmp_path, solver, recipe)
        whole, end = trainings.train(backend, range(8))
        weights, state = trainings.train(backend, range(4))
        again, end_again = trainings.train(backend, range(4, 8), weights, state)
        assert same(again, whole) and same(end_again, end), solver
        # what a solver starts with is taken as well as left
        _, fresh = trainings.train(backend, range(0))
        assert same(trainings.train(backend, range(8), start_weights(), fresh)[0], whole), solver
        assert all(np.any(state[name] != fresh[name]) for name in state), solver
