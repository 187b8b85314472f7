"""Solvers, multipliers, accumulation, losses and the recipe `equal`, against float64 numpy, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.fcn import random_weights
from helpers.linear_net import gradients, l2_gradients, output, start_weights, write_model
from helpers.linear_training import (
    BASE,
    FACTORS,
    U,
    Workers,
    batch,
    images,
    job_of,
    open_workers,
    rate_of,
    tolerance,
    train_step,
)
from helpers.rules import DECOUPLED, EQUAL, OWN, Rule
from multiseg import backend as registry
from multiseg.dataset import Dataset
from multiseg.dataset.feed import epoch_order
from multiseg.errors import SettingsError
from multiseg.job.job import Job
from multiseg.settings.initialisation import initial_weights
from multiseg.settings.schedules import Schedule
from multiseg.training.preparation import network_spec
from multiseg.worker.client import Worker

Load = Callable[..., Worker]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with open_workers() as workers:
        yield workers


@pytest.fixture
def small(backend: str, dataset: Any, workers: Workers, tmp_path: Path) -> Load:
    """small(**settings of a Job): the backend's worker with the small network newly in it."""
    return partial(workers.load, dataset, tmp_path, backend)


def reference(
    rule: Rule, options: Mapping[str, float], base: float, steps: int, decoupled: bool = False
) -> tuple[Any, Any]:
    """Weights after these steps, and the way that each weight went."""
    w = {name: value.astype(np.float64) for name, value in start_weights().items()}
    states: dict[str, dict[str, Any]] = {name: {} for name in w}
    way = {name: np.zeros(value.shape) for name, value in w.items()}
    for step in range(steps):
        found = l2_gradients(*batch(step), w)
        for name, (lr, decay) in FACTORS.items():
            rate, decay = lr * rate_of(step, base), decay * options["weight_decay"]
            if decoupled:
                at, g = w[name] * (1 - rate * decay), found[name]
            else:
                at, g = w[name], found[name] + decay * w[name]
            after = rule(at, g, rate, step + 1, states[name], options)
            way[name] += np.abs(after - w[name])
            w[name] = after
    return w, way


STEPS = 50


def check_steps(worker: Worker, backend: str, rule: Rule, options: Mapping[str, Any]) -> None:
    """Whether training with a changing rate, batches of two sizes, multipliers and weight decay is the reference's."""
    solver = options["name"]
    base = BASE.get(solver, 0.02)
    worker.call("set_weights", weights=start_weights())
    for step in range(STEPS):
        train_step(worker, backend, *batch(step), rate_of(step, base))
    found = worker.call("get_weights")
    expected, way = reference(rule, options, base, STEPS, solver in DECOUPLED)
    for name, value in expected.items():
        error = np.abs(found[name] - value).max()
        assert error < tolerance(way[name], value, STEPS), (
            name,
            error,
            tolerance(way[name], value, STEPS),
            way[name].max(),
        )


@pytest.mark.parametrize("solver", list(EQUAL))
def test_equal_is_one_rule_in_all_frameworks(backend: str, small: Load, solver: str) -> None:
    settings, options = job_of(backend, solver, "equal")
    check_steps(small(**settings), backend, EQUAL[solver], options)


def test_the_rules_would_be_told_apart() -> None:
    """What the frameworks do by themselves is far outside the tolerance of the recipe's rule."""
    others = [
        ("sgd", OWN["caffe"]["sgd"], {}),
        ("nesterov", OWN["caffe"]["nesterov"], {}),
        ("sgd", OWN["torch"]["sgd"], {"dampening": 0.9}),
        ("adam", OWN["torch"]["adam"], {}),
        ("adagrad", OWN["tensorflow"]["adagrad"], {"initial_accumulator": 0.1}),
        ("rmsprop", OWN["tensorflow"]["rmsprop"], {"momentum": 0.0}),
    ]
    for solver, rule, more in others:
        _, options = job_of("torch", solver, "equal")
        base = BASE.get(solver, 0.02)
        ours, way = reference(EQUAL[solver], options, base, STEPS)
        theirs, _ = reference(rule, {**options, **more}, base, STEPS)
        for name, value in ours.items():
            assert np.abs(theirs[name] - value).max() > 100 * tolerance(way[name], value, STEPS), (solver, name)


@pytest.mark.parametrize("solver", sorted({solver for rules in OWN.values() for solver in rules}))
def test_tutorial_is_the_frameworks_own_rule(backend: str, small: Load, solver: str) -> None:
    assert set(OWN[backend]) == set(registry.get(backend).solvers)
    if solver not in OWN[backend]:
        with pytest.raises(SettingsError, match=f"solver='{solver}': choose one of sgd, nesterov"):
            job_of(backend, solver, "tutorial")
        return
    settings, options = job_of(backend, solver, "tutorial")
    check_steps(small(**settings), backend, OWN[backend][solver], options)


@pytest.mark.parametrize(("loss", "slope"), [
    ("l1", np.sign),
    ("l2", lambda d: 2 * d),
    ("smooth_l1", lambda d: np.clip(d, -1, 1)),
])  # fmt: skip
def test_a_losss_gradient_is_its_formulas(backend: str, small: Load, loss: str, slope: Any) -> None:
    worker = small(loss=loss, solver_options={"momentum": 0, "weight_decay": 0})
    w = start_weights()
    worker.call("set_weights", weights=w)
    x, y = (array.astype(np.float32).astype(np.float64) for array in images(1, scale=3.0))
    exact = {name: value.astype(np.float64) for name, value in w.items()}
    difference = output(x, exact) - y
    assert 0.2 < (np.abs(difference) < 1).mean() < 0.8
    value = {"l1": np.abs(difference), "l2": difference**2,
             "smooth_l1": np.where(np.abs(difference) < 1, difference**2 / 2, np.abs(difference) - 0.5)}[loss]  # fmt: skip
    assert train_step(worker, backend, x, y, 1.0) == pytest.approx(value.mean(), rel=1e-5)
    found = worker.call("get_weights")
    for name, expected in gradients(x, exact, slope(difference) / y.size).items():
        assert np.abs(w[name] - found[name] - expected).max() < U * (2 * np.abs(w[name]).max() + 16)


@pytest.mark.needs("caffe")
@pytest.mark.parametrize(("recipe", "multipliers", "expected"), [
    ("tutorial", {}, 0.1),  # the file's own lr_mult
    ("tutorial", {"conv2.bias": {"decay": 0}}, 0.1),
    ("tutorial", {"conv2.bias": {"lr": 2}}, 2),
    ("equal", {}, 1),
])  # fmt: skip
def test_a_jobs_multipliers_override_the_prototxts(
    workers: Workers, dataset: Any, recipe: str, multipliers: Any, expected: float
) -> None:
    worker = workers.of("caffe")
    moved = []
    for given in (multipliers, {"conv2.bias": {"lr": 1}}):
        job = Job(dataset=dataset, backend="caffe", recipe=recipe, multipliers=given, seed=1, batch_size=4, loss="l2",
                  solver_options={"momentum": 0, "weight_decay": 0})  # fmt: skip
        worker.call("load", spec=network_spec(job.resolve(), dataset).to_json())
        weights = random_weights()
        worker.call("set_weights", weights=weights)
        x, y = (np.random.default_rng(1).uniform(0, 255, (4, 1, 32, 32)).astype(np.float32) for _ in range(2))
        worker.call("train_step", features=x, labels=y, rate=1e-3)
        moved.append(worker.call("get_weights")["conv2.bias"] - weights["conv2.bias"])
    assert np.allclose(moved[0], expected * moved[1], rtol=1e-4, atol=1e-6)


SLOPES = """
layer { name: "data" type: "Data" top: "data" exclude { stage: "deploy" } data_param { batch_size: 4 } }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } data_param { batch_size: 4 } }
layer { name: "data" type: "Input" top: "data" include { stage: "deploy" }
        input_param { shape { dim: 1 dim: 1 dim: 32 dim: 32 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 1 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "act" type: "PReLU" bottom: "conv" top: "act" }
layer { name: "loss" type: "EuclideanLoss" bottom: "act" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""


def test_multipliers_of_parameters_that_equal_does_not_draw(backend: str, dataset: Dataset, tmp_path: Path) -> None:
    """The slope of a PReLU starts as the frameworks have it."""
    (tmp_path / "net.prototxt").write_text(SLOPES)
    slopes = []
    for number, rate in enumerate((0, 1)):
        job = Job(dataset=dataset, backend=backend, model=tmp_path / "net.prototxt", recipe="equal", epochs=1, seed=1,
                  learning_rate=1e-7, multipliers={"act.weight": {"lr": rate}}, threads=1)  # fmt: skip
        with job.train(tmp_path / str(number), progress=False) as run:
            slopes.append(run.worker().call("get_weights")["act.weight"].item())
    assert slopes[0] == 0.25 != slopes[1]


def test_equal_trains_all_backends_alike(backend: str, coloured: Dataset, tmp_path: Path) -> None:
    """From one initialisation over one order of batches, on images in colour, which Caffe is fed as BGR."""
    job = Job(dataset=coloured, backend=backend, model=write_model(tmp_path, backend, 3), recipe="equal", seed=6, epochs=2,
              batch_size=2, accumulate=2, learning_rate=5e-6, threads=1)  # fmt: skip
    run = job.train(tmp_path / "run", progress=False)

    shapes = {name: value.shape for name, value in start_weights(3).items()}
    w = {name: value.astype(np.float64) for name, value in initial_weights(shapes, 6, "RGB", (3, 3)).items()}
    assert coloured.mean_pixel is not None
    mean = coloured.mean_pixel.astype(np.float64)[:, np.newaxis, np.newaxis]
    images, targets = (array.astype(np.float64) for array in coloured.val.read(range(len(coloured.val))))
    count, velocity = len(coloured.train), {name: np.zeros(value.shape) for name, value in w.items()}
    iterations = 2 * -(-count // 4)
    expected, iteration = [np.abs(output(images - mean, w) - targets).mean()], 0
    for epoch in range(2):
        order = epoch_order(count, 6, epoch)
        for at in range(0, count, 4):
            x, y = (array.astype(np.float64) for array in coloured.train.read(order[at : at + 4]))
            rate = Schedule.of(None).rate(5e-6, iteration, iterations)
            for name, gradient in l2_gradients(x - mean, y, w).items():
                velocity[name] = 0.9 * velocity[name] + gradient
                w[name] = w[name] - rate * velocity[name]
            iteration += 1
        expected.append(np.abs(output(images - mean, w) - targets).mean())
    assert expected[0] - expected[1] > 1
    assert [row["l1"] for row in run.history] == pytest.approx(expected, rel=1e-5)
