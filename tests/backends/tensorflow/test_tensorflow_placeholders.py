"""Placeholders besides the image: their values are told by their use, and refused by name where it does not tell them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import tensorflow_graphs
from multiseg.errors import ModelError
from multiseg.network import NetworkSpec

pytestmark = pytest.mark.needs("tensorflow")

Build = Callable[[Any, Any, Any], Any]


def floor(v1: Any, x: Any, p: Any) -> Any:
    """TensorFlow's dropout up to 1.12."""
    return x / p * v1.floor(v1.random_uniform(v1.shape(x)) + p)


def at_least(v1: Any, x: Any, p: Any) -> Any:
    """TensorFlow's dropout from 1.13 on, of a rate."""
    mask = v1.random_uniform(v1.shape(x)) >= p
    return x * (1 / (1 - p)) * v1.cast(mask, v1.float32)


def of_keep(v1: Any, x: Any, p: Any) -> Any:
    return at_least(v1, x, 1 - p)


def select(v1: Any, x: Any, p: Any) -> Any:
    """TensorFlow 2's dropout."""
    return v1.where_v2(v1.random_uniform(v1.shape(x)) >= p, x / (1 - p), 0.0)


def select_zeros(v1: Any, x: Any, p: Any) -> Any:
    return v1.where_v2(v1.random_uniform(v1.shape(x)) < p, v1.zeros_like(x), x / (1 - p))


def below(v1: Any, x: Any, p: Any) -> Any:
    return x * v1.cast(v1.random_uniform(v1.shape(x)) < p, v1.float32)


def inverted(v1: Any, x: Any, p: Any) -> Any:
    return x * (1 - v1.cast(v1.random_uniform(v1.shape(x)) < p, v1.float32))


NAMES = ["keep_prob", "dropout_probability", "drop_rate", "keep", "p", "Placeholder"]
# form -> the value without dropout
FORMS: dict[Build, float] = {
    floor: 1, at_least: 0, of_keep: 1, select: 0, select_zeros: 0, below: 1, inverted: 0,
}  # fmt: skip


def write(folder: Path, build: Callable[[Any, Any], Any], feeds: dict[str, Any]) -> tuple[Path, Any, Any]:
    """Write a graph of constants; return its path, images, and the output that TensorFlow computes for them and ``feeds``."""
    v1 = tensorflow_graphs.tf()
    with v1.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(v1.float32, [None, 8, 8, 1], "image")
        v1.identity(build(v1, v1.nn.conv2d(x, v1.ones([3, 3, 1, 2]), 1, "SAME")), "output")
        images = np.random.default_rng(2).normal(size=(3, 8, 8, 1)).astype(np.float32)
        expected = session.run("output:0", {x: images, **{f"{name}:0": value for name, value in feeds.items()}})
        (folder / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder / "net.pb", images, expected


def load(path: Path, solver: dict[str, Any] | None = None) -> Any:
    from multiseg_tensorflow.network import Network

    return Network(
        NetworkSpec(
            model=str(path), input_shape=(1, 8, 8), label_shape=(2, 8, 8), solver=solver, loss=None, seed=1,
            batch_size=None, val_batch_size=None, threads=1, device="cpu", lowering=True,
        )
    )  # fmt: skip


@pytest.mark.parametrize("shape", [[], None], ids=["scalar", "unknown"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_probability_of_dropout_is_told_by_its_use(tmp_path: Path, form: Build, shape: list[int] | None) -> None:
    name = NAMES[list(FORMS).index(form) % len(NAMES)]  # any name goes with any use
    path, images, expected = write(
        tmp_path, lambda v1, x: form(v1, x, v1.placeholder(v1.float32, shape, name)), {name: FORMS[form]}
    )
    assert np.allclose(load(path).predict(images, None)[0], expected, rtol=1e-6)


def normalised(v1: Any, x: Any, training: Any) -> Any:
    """Batch normalisation as user files write it: the statistics of the batch, or running ones."""
    mean, variance = v1.cond(
        training, lambda: tuple(v1.nn.moments(x, [0, 1, 2])), lambda: (v1.constant([1.0, 2.0]), v1.constant([3.0, 4.0]))
    )
    return v1.nn.batch_normalization(x, mean, variance, None, None, 1e-3)


def chosen(v1: Any, x: Any, training: Any) -> Any:
    """The same with a selection in place of branches."""
    mean, variance = v1.nn.moments(x, [0, 1, 2])
    mean = v1.where_v2(training, mean, v1.constant([1.0, 2.0]))
    return v1.nn.batch_normalization(
        x, mean, v1.where_v2(training, variance, v1.constant([3.0, 4.0])), None, None, 1e-3
    )


def dropped(v1: Any, x: Any, training: Any) -> Any:
    return v1.cond(training, lambda: floor(v1, x, v1.constant(0.5)), lambda: v1.identity(x))


def blended(v1: Any, x: Any, training: Any) -> Any:
    share = v1.cast(training, v1.float32)
    mean, variance = v1.nn.moments(x, [0, 1, 2])
    mean = share * mean + (1 - share) * v1.constant([1.0, 2.0])
    return (x - mean) / v1.sqrt(share * variance + (1 - share) * v1.constant([3.0, 4.0]))


PHASES = [normalised, chosen, dropped, blended]
# how a placeholder becomes a truth value of "training", and its value in inference
SWITCHES: dict[str, tuple[str, Callable[[Any, Any], Any], Any]] = {
    "phase": ("bool", lambda v1, p: p, False),
    "inference_only": ("bool", lambda v1, p: v1.logical_not(p), True),
    "mode": ("int32", lambda v1, p: v1.equal(p, 1), 0),
    "testing": ("float32", lambda v1, p: p < 0.5, 1),
}


@pytest.mark.parametrize(("form", "name"), list(itertools.product(PHASES, SWITCHES)))
def test_a_training_switch_is_told_by_its_use(tmp_path: Path, form: Build, name: str) -> None:
    dtype, truth, off = SWITCHES[name]
    path, images, expected = write(
        tmp_path, lambda v1, x: form(v1, x, truth(v1, v1.placeholder(dtype, [], name))), {name: off}
    )
    assert np.allclose(load(path).predict(images, None)[0], expected, rtol=1e-5, atol=1e-6)
    trained = load(path, {"name": "sgd"})
    labels = np.zeros((3, 8, 8, 2), np.float32)
    if form is dropped:
        losses = {trained.train_step(images, labels, 0.0, seed) for seed in range(4)}
        assert len(losses) == 4
        return
    epsilon = 0.0 if form is blended else 1e-3
    net = expected.astype(np.float64) * np.sqrt(np.array([3.0, 4.0]) + epsilon) + np.array([1.0, 2.0])
    loss = ((net - net.mean((0, 1, 2))) ** 2 / (net.var((0, 1, 2)) + epsilon)).mean()
    assert trained.train_step(images, labels, 0.0) == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("dtype", "use"),
    [
        ("float32", lambda v1, x, p: x * p),
        ("float32", lambda v1, x, p: x / p),
        ("bool", lambda v1, x, p: v1.cond(p, lambda: x, lambda: v1.reverse(x, [2]))),
    ],
    ids=["factor", "quotient", "flip"],
)
def test_a_placeholder_of_unknown_use_is_refused_until_its_value_is_specified(
    tmp_path: Path, dtype: str, use: Build
) -> None:
    value = True if dtype == "bool" else 0.25
    path, images, expected = write(
        tmp_path, lambda v1, x: use(v1, x, v1.placeholder(dtype, [], "keep_training")), {"keep_training": value}
    )
    with pytest.raises(
        ModelError, match=r'net\.pb: .*keep_training:0 .*net\.pb\.json.*\{"values": \{"keep_training": VALUE\}\}'
    ):
        load(path)
    (tmp_path / "net.pb.json").write_text(json.dumps({"values": {"keep_training": value}}))
    assert np.allclose(load(path).predict(images, None)[0], expected, rtol=1e-6)


def test_probability_and_switch_together(tmp_path: Path) -> None:
    def build(v1: Any, x: Any) -> Any:
        training, keep = v1.placeholder(v1.bool, [], "a"), v1.placeholder(v1.float32, None, "b")
        net = normalised(v1, x, training)
        return floor(v1, net, v1.cond(training, lambda: keep, lambda: v1.constant(1.0)))

    path, images, expected = write(tmp_path, build, {"a": False, "b": 1.0})
    assert np.allclose(load(path).predict(images, None)[0], expected, rtol=1e-5, atol=1e-6)
