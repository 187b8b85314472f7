"""What a solver keeps moves from one framework to another, and a training goes on there as if it had never been elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.linear_net import start_weights
from helpers.linear_training import BASE, Workers, batch, job_of, open_workers, rate_of, tolerance, train_step
from helpers.rules import EQUAL, OWN
from multiseg import backend as registry
from multiseg.errors import ModelError
from multiseg.run.solver_state import SolverState, carried

STEPS = 4

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with open_workers() as workers:
        yield workers


class Training:
    """Steps of the small network with a solver of a backend; rate and batch depend on the number of the step alone."""

    def __init__(
        self, workers: Workers, dataset: Any, folder: Path, backend: str, solver: str, recipe: str, **settings: Any
    ) -> None:
        self.backend, self.solver, self.recipe = backend, solver, recipe
        self.worker = workers.load(dataset, folder, backend, **{**job_of(backend, solver, recipe)[0], **settings})
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

    def step_without_gradient(self, weights: Arrays, state: Arrays, rate: float) -> Arrays:
        """Weights after a step whose labels are what the network makes."""
        self.worker.call("set_weights", weights=weights, state=state)
        order = (0, 2, 3, 1) if registry.get(self.backend).data_order == "NHWC" else (0, 1, 2, 3)
        features = np.ascontiguousarray(batch(0)[0].transpose(order), np.float32)
        made, _, _ = self.worker.call("predict", features=features, labels=None)
        self.worker.call("train_step", features=features, labels=made, rate=rate)
        found: Arrays = self.worker.call("get_weights")
        return found

    def neutral(self, state: Arrays, step: int) -> SolverState:
        """A state of it, as the core has it, at the rate of that step."""
        slots = {name: value for name, value in state.items() if name != "steps"}
        steps = int(state["steps"]) if "steps" in state else None
        return SolverState(
            solver=self.solver, recipe=self.recipe, backend=self.backend, loss="l2", rate=self.rate(step),
            trained=self.trained, steps=steps, slots=slots,
        )  # fmt: skip


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_in_one_framework_it_goes_on_to_the_bit(backend: str, workers: Workers, dataset: Any, tmp_path: Path) -> None:
    """The framework's own solvers; those of the recipe `equal` are in the contract that any backend is tested by."""
    for solver in OWN[backend]:
        training = Training(workers, dataset, tmp_path, backend, solver, "tutorial")
        whole = training.train(range(2 * STEPS))
        end = training.state
        half, between = training.train(range(STEPS)), training.state
        assert all(np.any(between[name] != training.start[name]) for name in between), solver
        assert same(training.train(range(STEPS, 2 * STEPS), half, between), whole) and same(training.state, end), solver
        # and so it does in a network that was made anew, where the framework has made no state yet
        anew = Training(workers, dataset, tmp_path, backend, solver, "tutorial")
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
    trainings = {name: Training(workers, dataset, tmp_path, name, solver, "equal") for name in backends}
    halves = {name: (training.train(range(STEPS)), training.state) for name, training in trainings.items()}
    for name, target in trainings.items():
        undisturbed = target.train(range(2 * STEPS))
        for source in set(backends) - {name}:
            weights, state = halves[source]
            there = trainings[source].neutral(state, STEPS - 1)
            moved = carried(there, target.neutral(target.start, STEPS), dict(zip(weights, weights, strict=True)), "run")
            assert same(moved.state, state) and set(moved.how.values()) == {"as it is"}
            with_state = target.train(range(STEPS, 2 * STEPS), weights, moved.state)
            without = target.train(range(STEPS, 2 * STEPS), weights)
            for part, value in undisturbed.items():
                # the way that the weight goes, at least; each of both trainings is off the exact one by the tolerance at most
                way = np.abs(halves[name][0][part] - start_weights()[part]) + np.abs(value - halves[name][0][part])
                allowed = 2 * tolerance(way, value, 2 * STEPS)
                error = np.abs(with_state[part] - value).max()
                assert error < allowed, (source, name, part, error, allowed)
                assert np.abs(without[part] - value).max() > 100 * allowed, (source, name, part)


MOVES = {"solver_options": {"momentum": 0.9, "weight_decay": 0.0}}


@pytest.mark.needs("caffe", "tensorflow", "torch")
@pytest.mark.parametrize("solver", ["sgd", "nesterov"])
def test_the_frameworks_own_momentum_moves_on_by_as_much(
    workers: Workers, dataset: Any, tmp_path: Path, backends: list[str], solver: str
) -> None:
    """By hand: h is how far the last step went for its momentum; where the gradient is 0, the next goes 0.9 h (0.81 h where
    Nesterov's looks ahead), whatever the framework, its rate and its multipliers' way of counting."""
    trainings = {name: Training(workers, dataset, tmp_path, name, solver, "tutorial", **MOVES) for name in backends}
    for source, training in trainings.items():
        for name, target in trainings.items():
            weights, state = training.train(range(STEPS)), training.state
            (slot,) = {key.partition("/")[0] for key in state}
            assert slot == ("displacement" if source == "caffe" else "momentum")
            by_rate = 1.0 if slot == "displacement" else training.rate(STEPS - 1)
            there = training.neutral(state, STEPS - 1)
            here = target.neutral(target.start, STEPS + 3)
            moved = carried(there, here, dict(zip(weights, weights, strict=True)), "run")
            after = target.step_without_gradient(
                weights, moved.state, target.rate(STEPS + 3 if name != source else STEPS - 1)
            )
            for part, value in weights.items():
                factor = 1.0 if slot == "displacement" else training.trained[part]
                h = state[f"{slot}/{part}"].astype(np.float64) * by_rate * factor
                expected = value - (0.9 if solver == "sgd" else 0.81) * h
                assert np.abs(h).max() > 1e-3
                assert np.abs(after[part] - expected).max() < 1e-6, (source, name, part)
