"""What every backend's network must do, whichever framework computes it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.fcn import fcn, fcn_layers, random_weights
from helpers.lending import weights_of
from multiseg import backend as registry
from multiseg.errors import ModelError, RunError, TrainingError
from multiseg.layout import Layout

SHAPES = {name: list(value.shape) for name, value in random_weights().items()}
DEFAULTS = {"caffe": (1e-7, 4, 4), "torch": (1e-3, 4, 32), "tensorflow": (1e-5, 16, 16)}


def layout_of(backend: str) -> Layout:
    declared = registry.get(backend)
    return Layout(declared.data_order, declared.channel_order, None)


def some_images(count: int = 3, size: int = 32) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (count, 1, size, size), dtype=np.uint8)


def test_declares_the_tutorials_defaults(backend: str, load: Any) -> None:
    rate, batch, val_batch = DEFAULTS[backend]
    described = load().described
    assert registry.get(backend).learning_rate == rate
    assert (described["batch_size"], described["val_batch_size"]) == (batch, val_batch)
    assert described["lowered"] == ["conv2", "deconv"]


def test_has_the_tutorials_parameters_in_neutral_shapes(load: Any) -> None:
    described = load(predict_only=True).described
    assert described["parameters"] == SHAPES
    assert sum(int(np.prod(shape)) for shape in described["parameters"].values()) == 8_652_097


@lru_cache
def expected_layers(size: int = 32) -> list[np.ndarray]:
    """What the layers make of some images of that size, in float64; the last is the output."""
    return fcn_layers(some_images(size=size), random_weights())


@pytest.mark.parametrize("lowering", [True, False])
def test_output_for_larger_images_is_that_of_the_float64_reference(backend: str, load: Any, lowering: bool) -> None:
    """For those of the dataset's size the activations are compared below, of which the output is the last."""
    worker = load(predict_only=True, lowering=lowering)
    worker.call("set_weights", weights=random_weights())
    layout = layout_of(backend)
    output, loss, _ = worker.call("predict", features=layout.features(some_images(size=64)), labels=None)
    expected = expected_layers(64)[-1]
    # sums of up to 8192 products of float32: rounding grows with the square root of their number
    tolerance = 1e-6 * np.sqrt(8192) * np.abs(expected).max()
    assert loss is None
    assert np.abs(layout.output(output) - expected).max() < tolerance


LAYERS = {
    "caffe": ["conv1", "relu1", "conv2", "relu2", "deconv"],
    "torch": ["conv1", "relu1", "conv2", "relu2", "deconv"],
    "tensorflow": ["conv1", "conv1.Relu", "conv2", "conv2.Relu", "deconv"],
}


@pytest.mark.parametrize("lowering", [True, False])
def test_activations_are_those_of_the_float64_reference(backend: str, load: Any, lowering: bool) -> None:
    """Before and after each ReLU, though Caffe's and PyTorch's work in place; whatever is lowered; with and without labels."""
    worker, images = load(predict_only=True, lowering=lowering, loss="l2"), some_images()
    worker.call("set_weights", weights=random_weights())
    layout = layout_of(backend)
    for labels in (None, layout.labels(images)):
        batch = {"features": layout.features(images), "labels": labels}
        output, loss, activations = worker.call("predict", **batch, activations=True)
        assert (loss is None) == (labels is None)
        assert list(activations) == LAYERS[backend]
        for made, expected in zip(activations.values(), expected_layers(), strict=True):
            tolerance = 1e-6 * np.sqrt(8192) * np.abs(expected).max()
            assert np.abs(layout.activation(made) - expected).max() < tolerance
        plain, plain_loss, none = worker.call("predict", **batch)
        assert none == {} and plain_loss == loss
        assert np.array_equal(plain, output) and np.array_equal(plain, activations["deconv"])


@pytest.mark.nightly  # the FCN at full width; test_training.py and the contract suite resume small networks
def test_training_goes_down_and_a_resumed_one_is_bit_identical(
    backend: str, dataset: Any, tmp_path: Path, own_processes: Any
) -> None:
    """One that is cut before its first snapshot begins anew: it shows that the same seed gives the same."""
    own_processes()
    job = multiseg.Job(dataset=dataset, backend=backend, seed=11, threads=2, epochs=2, batch_size=8, solver="adam",
                       learning_rate=1e-3, loss="l2")  # fmt: skip
    whole = job.train(tmp_path / "whole", progress=False)
    losses = [row["val_loss"] for row in whole.history]
    assert losses[-1] < losses[0] / 2
    ours, rows = weights_of(whole), untimed(whole)
    for epoch in (1, 2):  # before the first snapshot, and after it

        def interrupt(event: dict[str, Any], epoch: int = epoch) -> None:
            if event["event"] == "step" and event["epoch"] == epoch:
                raise KeyboardInterrupt

        folder = tmp_path / f"cut{epoch}"
        with pytest.raises(KeyboardInterrupt):
            job.train(folder, progress=interrupt)
        with pytest.raises(RunError, match="seed=11, not 5"):
            replace(job, seed=5).train(folder, resume=True, progress=False)
        # what is left open is what the run was made with
        again = replace(job, seed=None, batch_size=None, loss=None)
        cut = again.train(folder, resume=True, progress=False)
        assert cut.settings == whole.settings
        theirs = weights_of(cut)
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
        assert untimed(cut) == rows


def untimed(run: multiseg.Run) -> list[dict[str, Any]]:
    """The history, but for its times."""
    timed = ("seconds", "val_seconds", "images_per_second")
    return [{key: row[key] for key in row if key not in timed} for row in run.history]


def test_a_picture_comes_out_upright_at_any_size(backend: str, dataset: Any, tmp_path: Path) -> None:
    """With weights that pass the image on, an asymmetric picture comes out as it went in, whatever the data order."""
    job = multiseg.Job(dataset=dataset, backend=backend, epochs=1, batch_size=108, subtract_mean="none")
    run = job.train(tmp_path / "run", progress=False)
    weights = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    weights["conv1.weight"][0, 0, 1, 1] = 1
    for row in range(16):
        for column in range(16):
            weights["conv2.weight"][row * 16 + column, 0, row, column] = 1
            weights["deconv.weight"][row * 16 + column, 0, row, column] = 1
    picture = np.full((1, 1, 320, 160), 255, np.uint8)
    picture[0, 0, :40, :100] = 0  # a flag in the top left corner
    picture[0, 0, 200:, 150:] = 90
    with run:
        run.worker().call("set_weights", weights=weights)
        assert np.array_equal(run.predict(picture), picture)
        with pytest.raises(ModelError, match="crop or pad"):
            run.predict(picture[:, :, :, :150])


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(backend: str, dataset: Any, tmp_path: Path) -> None:
    job = multiseg.Job(dataset=dataset, backend=backend, epochs=1, learning_rate=1e15, loss="l2")
    with pytest.raises(
        TrainingError, match=r"the loss is (nan|inf) at iteration \d+ \(epoch 1\), .*; try a learning rate below"
    ):
        job.train(tmp_path / "run", progress=False)
    assert multiseg.Run.open(tmp_path / "run").summary["status"] == "failed"


def test_the_files_own_loss_is_the_tutorials(backend: str, load: Any) -> None:
    worker, weights, images = load(), random_weights(), some_images()
    worker.call("set_weights", weights=weights)
    layout = layout_of(backend)
    _, measured, _ = worker.call("predict", features=layout.features(images), labels=layout.labels(images[::-1]))
    d = expected_layers()[-1] - images[::-1]
    squares = sum(
        float(np.square(weights[name].astype(np.float64)).sum()) for name in weights if name.endswith("weight")
    )
    expected = {
        "caffe": np.abs(d).sum() / len(images),
        "torch": np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5).mean(),
        "tensorflow": (d**2).mean() + 0.05 * squares / 2,  # L2 0.05 on every kernel, in the reported loss
    }
    assert measured == pytest.approx(expected[backend], rel=1e-4)


# how far the second step goes, in units of the first one: at the same rate, and at rate 0
SECOND_STEP = {
    "caffe": (1.9, 0.9),  # momentum 0.9; the buffer holds rate x gradient, so what is in it moves on at rate 0
    "torch": (1.0, 0.0),  # 0.9 of the buffer and, dampened, 0.1 of the gradient
    "tensorflow": (1.0, 0.0),  # no momentum
}


@pytest.mark.parametrize("at_rate_zero", [False, True])
def test_sgd_is_the_frameworks_own(backend: str, load: Any, at_rate_zero: bool) -> None:
    """On the last layer's bias, whose gradient is known: 2 x the mean difference, for the mean squared error."""
    worker, weights, images = load(loss="l2", batch_size=3), random_weights(), some_images()
    worker.call("set_weights", weights=weights)
    layout = layout_of(backend)
    rate = 1e-7  # small enough that the second gradient is the first one
    biases = [weights["deconv.bias"]]
    batch = {"features": layout.features(images), "labels": layout.labels(images)}
    for each in (rate, 0.0 if at_rate_zero else rate):
        worker.call("set_weights", weights={**worker.call("get_weights"), "deconv.bias": np.zeros(1, np.float32)})
        worker.call("train_step", **batch, rate=each)
        biases.append(worker.call("get_weights")["deconv.bias"])
    weights["deconv.bias"] = np.zeros(1, np.float32)
    gradient = 2 * (fcn(images, weights) - images).mean()
    first, second = -biases[1], -biases[2]
    assert first == pytest.approx(rate * gradient, rel=1e-3)
    assert second == pytest.approx(
        SECOND_STEP[backend][at_rate_zero] * first, rel=2e-2, abs=1e-3 * abs(float(first[0]))
    )
