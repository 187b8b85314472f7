"""The averages that batch normalisation keeps, after each training step: each framework by its own rule, against float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.lending import lend
from helpers.networks import layer, topology
from multiseg.parity import case as cases
from multiseg.parity.case import Case
from multiseg.parity.result import Parity
from multiseg.parity.start import start_weights
from multiseg.worker.client import Worker

STEPS = 3
NAMES = ("norm.running_mean", "norm.running_var")


def case_of(**parameters: Any) -> Case:
    """Batch normalisation of the images, so that its statistics are theirs, and a convolution."""
    norm = layer("norm", "BatchNormalization", "data", **parameters)
    network = topology([norm, layer("conv", "Conv", "norm", num_output=2, kernel_shape=[1, 1])], shape=(2, 5, 4))
    draw = np.random.default_rng(4)
    images, labels = (draw.normal(2, 3, (3, 2, 5, 4)).astype(np.float32) for _ in range(2))
    return Case(network, start_weights(network, 4), images, labels, rate=1e-3, steps=STEPS)


@pytest.fixture
def worker(backend: str) -> Iterator[Worker]:
    process = lend(backend)
    yield process
    process.close()


def checked(case: Case, worker: Worker, folder: Path) -> Parity:
    return cases.check(case, worker.backend, worker, folder)


def weights_of_batches(backend: str) -> list[float]:
    """The weight of each step's batch in the average, by the frameworks' documentation."""
    if backend == "caffe":  # sums, multiplied by moving_average_fraction 0.999, that begin with a count of 1
        counts = [1.0]
        for _ in range(STEPS):
            counts.append(0.999 * counts[-1] + 1)
        return [1 / count for count in counts[1:]]
    return [{"torch": 0.1, "tensorflow": 0.001}[backend]] * STEPS


def test_each_framework_keeps_averages_by_its_own_rule(backend: str, worker: Worker, tmp_path: Path) -> None:
    case = case_of(epsilon=1e-3)  # TensorFlow's fused operation has no epsilon below 1.001e-5
    parity = checked(case, worker, tmp_path)
    assert parity.ok and parity.complete, str(parity)
    rows = [(row.name, row.step) for row in parity.rows if row.stage == "step" and row.name in NAMES]
    assert sorted(rows) == [(name, step) for name in NAMES for step in range(1, STEPS + 1)]
    # by hand: the same batch in each step, and the variance of n - 1, as all three frameworks' documentation states
    pixels = case.images.astype(np.float64).swapaxes(0, 1).reshape(2, -1)
    kept = worker.call("get_weights")
    for name, statistic in zip(NAMES, (pixels.mean(1), pixels.var(1, ddof=1)), strict=True):
        average = case.weights[name].astype(np.float64)
        for weight in weights_of_batches(backend):
            average = (1 - weight) * average + weight * statistic
        np.testing.assert_allclose(kept[name], average, rtol=2e-6, atol=1e-6)


def test_another_momentum_is_found_and_named(worker: Worker, tmp_path: Path) -> None:
    case = replace(case_of(momentum=0.1), written=case_of(momentum=0.2).topology)
    parity = checked(case, worker, tmp_path)
    assert "'norm.running_mean' is the first to differ, after step 1" in str(parity.first_divergence)
    assert "it agrees with the weight" in str(parity.first_divergence)
    assert all(row.ok for row in parity.rows if row.name not in NAMES)


@pytest.mark.needs("torch")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("old + 0.1 * (x.var((0, 2, 3), unbiased=False) - old)", "it agrees with the biased variance of the batch"),
        ("old", "it does not change at all"),
    ],
)
def test_another_variance_is_found_and_named(
    change: str, words: str, dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    """The module of a file replaces PyTorch's average in a hook."""
    model = tmp_path / "net.py"
    model.write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.norm, self.conv = nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1)\n"
        "        self.norm.register_forward_pre_hook(self.before)\n        self.norm.register_forward_hook(self.after)\n\n"
        "    def before(self, norm, inputs):\n        self.old = norm.running_var.clone()\n\n"
        "    def after(self, norm, inputs, output):\n        x, old = inputs[0].detach(), self.old\n"
        f"        if norm.training:\n            norm.running_var.data.copy_({change})\n\n"
        "    def forward(self, x):\n        return self.conv(self.norm(x))\n"
    )
    result = multiseg.check_parity(dataset, ["torch"], model, steps=1, batch_size=2, threads=1, learning_rate=1e-6)
    assert "'norm.running_var' is the first to differ, after step 1" in str(result.first_divergence)
    assert words in str(result.first_divergence)


@pytest.mark.needs("torch")
@pytest.mark.parametrize("momentum", ["None", "0.3"])
def test_a_module_that_is_used_twice_averages_twice(momentum: str, dataset: multiseg.Dataset, tmp_path: Path) -> None:
    model = tmp_path / "net.py"
    model.write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        f"        self.norm, self.conv = nn.BatchNorm2d(1, momentum={momentum}), nn.Conv2d(1, 1, 3, padding=1)\n\n"
        "    def forward(self, x):\n        return self.norm(self.conv(self.norm(x)))\n"
    )
    result = multiseg.check_parity(dataset, ["torch"], model, steps=3, batch_size=2, threads=1, learning_rate=1e-6)
    assert result.ok, str(result)
    assert sum(row.name in NAMES and row.stage == "step" for row in result.rows) == 6


def test_averages_that_training_uses_are_kept(worker: Worker, tmp_path: Path) -> None:
    parity = checked(case_of(training_statistics="stored"), worker, tmp_path)
    rows = [row for row in parity.rows if row.stage == "step" and row.name in NAMES]
    assert parity.ok and len(rows) == 2 * STEPS and {row.verdict for row in rows} == {"equal"}
