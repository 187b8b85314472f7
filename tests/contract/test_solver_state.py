"""What a solver keeps moves from one framework to another, and a training goes on there as if it had never been elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linear_net import start_weights
from linear_training import BASE, Workers, batch, job_of, open_workers, rate_of, train_step
from rules import EQUAL, OWN

from multiseg import backend as registry
from multiseg.errors import ModelError
from multiseg.solver_state import SolverState, carried

U = 2.0**-24  # rounding to float32
STEPS = 4

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with open_workers() as workers:
        yield workers


class Training:
    """Steps of the small network with a solver of a backend; rate and batch depend on the number of the step alone."""

    def __init__(self, workers: Workers, dataset: Any, folder: Path, backend: str, solver: str, recipe: str) -> None:
        self.backend, self.solver, self.recipe = backend, solver, recipe
        settings, self.options = job_of(backend, solver, recipe)
        self.worker = workers.load(dataset, folder, backend, **settings)
        self.trained: dict[str, float] = self.worker.described["trained"]
        self.start = self.state

    @property
    def state(self) -> Arrays:
        """What the solver keeps now."""
        state: Arrays = self.worker.call("get_weights", state=True)
        return state

    def rate(self, step: int) -> float:
        return rate_of(step, BASE.get(self.solver, 0.02))

    def train(self, steps: range, weights: Arrays | None = None, state: Arrays | None = None) -> Arrays:
        """Weights after these steps, from the given ones, or from the beginning."""
        self.worker.call("set_weights", weights=weights or start_weights(), state=state or self.start)
        for step in steps:
            train_step(self.worker, self.backend, *batch(step), self.rate(step))
        found: Arrays = self.worker.call("get_weights")
        return found

    def neutral(self, state: Arrays, step: int) -> SolverState:
        """A state of it, as the core has it, at the rate of that step."""
        slots = {name: value for name, value in state.items() if name != "steps"}
        steps = int(state["steps"]) if "steps" in state else None
        return SolverState(
            self.solver, self.recipe, self.backend, "l2", self.rate(step), self.trained, steps, slots
        )  # fmt: skip


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("recipe", ["tutorial", "equal"])
def test_in_one_framework_it_goes_on_to_the_bit(
    backend: str, workers: Workers, dataset: Any, tmp_path: Path, recipe: str
) -> None:
    for solver in OWN[backend] if recipe == "tutorial" else EQUAL:
        training = Training(workers, dataset, tmp_path, backend, solver, recipe)
        whole = training.train(range(2 * STEPS))
        end = training.state
        half, between = training.train(range(STEPS)), training.state
        assert all(np.any(between[name] != training.start[name]) for name in between), solver
        assert same(training.train(range(STEPS, 2 * STEPS), half, between), whole) and same(training.state, end), solver
        # and so it does in a network that was made anew, where the framework has made no state yet
        anew = Training(workers, dataset, tmp_path, backend, solver, recipe)
        assert same(anew.start, training.start), solver
        assert same(anew.train(range(STEPS, 2 * STEPS), half, between), whole), solver


def test_a_state_that_does_not_fit_is_refused_by_name(
    backend: str, workers: Workers, dataset: Any, tmp_path: Path
) -> None:
    training = Training(workers, dataset, tmp_path, backend, "adam", "equal")
    for change, words in (
        ({"mean/conv1.bias": None}, "its solver keeps 'mean/conv1.bias'"),
        ({"mean/conv9.bias": np.zeros(3, np.float32)}, "its solver keeps no 'mean/conv9.bias'"),
        ({"square/conv1.bias": np.zeros(3, np.float32)}, r"'square/conv1.bias' given to its solver is \(3,\)"),
    ):
        state = {name: value for name, value in {**training.start, **change}.items() if value is not None}
        with pytest.raises(ModelError, match=words):
            training.train(range(0), state=state)


@pytest.mark.needs("caffe", "tensorflow", "torch")
@pytest.mark.parametrize("solver", list(EQUAL))
def test_from_any_framework_to_any_other_it_goes_on(
    workers: Workers, dataset: Any, tmp_path: Path, backends: list[str], solver: str
) -> None:
    """Against the target's own undisturbed steps: within rounding with the state, far off without it."""
    trainings = {
        name: Training(workers, dataset, tmp_path, name, solver, "equal") for name in backends
    }  # one network of each framework, each in its own process
    undisturbed = {name: training.train(range(2 * STEPS)) for name, training in trainings.items()}
    halves = {name: (training.train(range(STEPS)), training.state) for name, training in trainings.items()}
    for source, (weights, state) in halves.items():
        for name, target in trainings.items():
            if name == source:
                continue
            there = trainings[source].neutral(state, STEPS - 1)
            moved = carried(there, target.neutral(target.start, STEPS), {each: each for each in weights}, "run")
            assert same(moved.state, state)  # bit for bit
            assert set(moved.how.values()) == {"as it is"}
            errors = []
            for given in (moved.state, target.start):
                found = target.train(range(STEPS, 2 * STEPS), weights, given)
                errors.append({part: float(np.abs(found[part] - undisturbed[name][part]).max()) for part in found})
            print(source, name, solver, errors)
