"""The losses that exported files bring along, against float64 numpy, and one update with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.exported import Array, Frameworks, Step, network, random_weights
from multiseg import backend as registry
from multiseg.exporting import files
from multiseg.layout import Layout
from multiseg.topology import Topology

CONV: Step = ("Conv", {"num_output": 5, "kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
DENSE: list[Step] = [("Flatten", {}), ("Gemm", {"num_output": 5})]


@pytest.fixture(scope="module")
def frameworks() -> Iterator[Frameworks]:
    found = Frameworks()
    yield found
    found.close()


def tell(frameworks: Frameworks, backend: str, topology: Topology, labels: Array, folder: Path) -> tuple[Array, float]:
    """Outputs and loss for two images, as the core asks for them."""
    path = folder / f"net{registry.get(backend).formats[0]}"
    files.export(topology, backend, path, label_shape=labels.shape[1:])
    worker = frameworks.load(backend, path, topology, random_weights(topology), label_shape=labels.shape[1:])
    layout = Layout(registry.get(backend).data_order, "RGB", None)
    images = np.random.default_rng(3).standard_normal((len(labels), *topology.input_shape)).astype(np.float32)
    output, loss, _ = worker.call("predict", features=layout.features(images), labels=layout.labels(labels))
    return layout.activation(output).astype(np.float64), loss


@pytest.mark.parametrize("last", [None, "Softmax", "LogSoftmax"])
@pytest.mark.parametrize("per_pixel", [False, True])
def test_class_numbers_are_compared_by_cross_entropy(
    backend: str, frameworks: Frameworks, last: str | None, per_pixel: bool, tmp_path: Path
) -> None:
    steps = [*([CONV] if per_pixel else DENSE), *([(last, {"axis": 1})] if last else [])]
    labels = np.random.default_rng(5).integers(0, 5, (2, 1, 9, 10) if per_pixel else (2, 1, 1, 1))
    output, loss = tell(frameworks, backend, network(*steps), labels.astype(np.float32), tmp_path)
    output = output.reshape(2, 5, -1)
    logs = np.log(output) if last == "Softmax" else output - np.log(np.exp(output).sum(1, keepdims=True))
    right = np.take_along_axis(logs, labels.reshape(2, 1, -1), 1)
    assert loss == pytest.approx(-right.mean(), rel=1e-5)


OWN: dict[str, Callable[[Array], Any]] = {
    "caffe": lambda d: np.abs(d).sum() / len(d),
    "tensorflow": lambda d: (d**2).mean(),
    "torch": lambda d: np.where(np.abs(d) < 1, d**2 / 2, np.abs(d) - 0.5).mean(),
}


def test_images_are_compared_by_the_tutorials_loss_of_the_backend(
    backend: str, frameworks: Frameworks, tmp_path: Path
) -> None:
    labels = np.random.default_rng(5).standard_normal((2, 5, 9, 10)).astype(np.float32)
    output, loss = tell(frameworks, backend, network(CONV), labels, tmp_path)
    assert loss == pytest.approx(OWN[backend](output - labels), rel=1e-5)


# Among them are layers that Caffe's file writes over their inputs, and others whose gradients need what they made.
TRAINED: list[Step] = [
    CONV, ("Relu", {}), ("Dropout", {"ratio": 0.0}), CONV, ("LRN", {"size": 3, "alpha": 0.5}), ("Relu", {}),
    ("BatchNormalization", {"affine": False}), ("Relu", {}), CONV, ("Tanh", {}), ("Relu", {}), CONV,
    ("Mul", {}, ["l11", "l10"]), ("Relu", {}), ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": True}),
    ("Relu", {}), ("Concat", {"axis": 1}, ["l15", "l15"]), ("Relu", {}), ("Flatten", {}), ("Gemm", {"num_output": 5}),
]  # fmt: skip


@pytest.mark.needs("caffe", "tensorflow", "torch")
def test_one_update_is_the_same_in_all(frameworks: Frameworks, tmp_path: Path) -> None:
    topology = network(*TRAINED)
    labels = np.array([[[[3.0]]], [[[1.0]]]], np.float32)
    images = np.random.default_rng(3).standard_normal((2, 4, 9, 10)).astype(np.float32)
    weights = random_weights(topology)
    changes = {}
    for backend in ("caffe", "tensorflow", "torch"):
        path = tmp_path / f"net{registry.get(backend).formats[0]}"
        files.export(topology, backend, path, label_shape=(1, 1, 1))
        solver = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}
        worker = frameworks.load(backend, path, topology, weights, label_shape=(1, 1, 1), solver=solver)
        layout = Layout(registry.get(backend).data_order, "RGB", None)
        worker.call("train_step", features=layout.features(images), labels=layout.labels(labels), rate=1.0, seed=0)
        after = worker.call("get_weights")
        changes[backend] = {name: after[name] - weights[name] for name in weights if "running" not in name}
    for name, change in changes["torch"].items():
        assert np.abs(change).max() > 1e-7, name
        for backend in ("caffe", "tensorflow"):
            # rounding, which the batch normalisation multiplies: it divides by a deviation far below the values it takes
            assert np.abs(changes[backend][name] - change).max() <= 2e-4 * np.abs(change).max() + 1e-7, (backend, name)
