"""Training with dropout against float64: planted mistakes are found in every framework, and right networks agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.exported import Step, network
from multiseg import backend as registry
from multiseg.parity import case as cases
from multiseg.parity import dropout
from multiseg.parity.case import Case
from multiseg.parity.start import start_weights
from multiseg.topology import Topology
from multiseg.worker import pool
from multiseg.worker.client import Worker

CONV: Step = ("Conv", {"num_output": 4, "kernel_shape": [3, 3]})
NEXT: Step = ("Conv", {"num_output": 4, "kernel_shape": [2, 2], "strides": [2, 1]})
NOTHING: Step = ("Identity", {})
END: tuple[Step, ...] = (("Flatten", {}), ("Gemm", {"num_output": 3}), ("Reshape", {"shape": [3, 1, 1]}))


def drop(ratio: float = 0.3, **more: Any) -> Step:
    return ("Dropout", {"ratio": ratio, **more})


FIRST, SECOND = drop(), drop(0.5, channelwise=True)


def thinned(*, first: Step = FIRST, second: Step = SECOND, ends: tuple[Step, ...] = ()) -> Topology:
    """Return a network with two dropouts, after a ReLU and a convolution, and the layers ``ends`` after these."""
    return network(CONV, ("Relu", {}), first, NEXT, second, *(ends or (("Tanh", {}), NOTHING)), *END)


RIGHT = thinned()
MISTAKES: dict[str, tuple[Topology, str]] = {
    "ratio": (thinned(first=drop(0.35)), "1.53846 instead of 0 and 1.42857"),
    "ratio of channels": (thinned(second=drop(0.4, channelwise=True)), "1.66667 instead of 0 and 2"),
    "missing": (thinned(first=NOTHING), ""),
    "elements": (thinned(second=drop(0.5)), "not whole channels"),
    "channels": (thinned(first=drop(channelwise=True)), "whole channels, not elements"),
    # the same shape, and right factors: only the gradients differ
    "place": (thinned(second=("Tanh", {}), ends=(SECOND, NOTHING)), "gradient of"),
    "one more": (thinned(ends=(("Tanh", {}), drop(0.2))), ""),
}


@pytest.fixture
def worker(backend: str) -> Any:
    with pool.start(registry.get(backend), 1) as started:
        yield started


def case_of(topology: Topology, count: int = 12) -> Case:
    draw = np.random.default_rng(3)
    images = draw.normal(size=(count, *topology.input_shape)).astype(np.float32)
    labels = draw.normal(size=(count, 3, 1, 1)).astype(np.float32)
    solver = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-3}
    return Case(topology, start_weights(topology, 1), images, labels, solver=solver, rate=0.01, steps=2)


def test_a_network_with_dropout_trains_as_float64_does(worker: Worker, tmp_path: Path) -> None:
    result = cases.check(case_of(RIGHT), worker.backend, worker, tmp_path)
    assert result.ok, str(result)
    rows = [row for row in result.rows if row.stage == dropout.STAGE]
    dropouts = [layer.name for layer in RIGHT.layers if layer.type == "Dropout"]
    weights = [f"{name}" for name in RIGHT.weights]
    assert {row.name for row in rows if row.step is None} == {*dropouts, *(f"gradient of {name}" for name in weights)}
    assert {row.name for row in rows if row.step == 2} == {*dropouts, *weights}
    # gradients are compared to more than a thousandth
    assert all(row.resolution < 1e-3 for row in rows if row.name.startswith("gradient of l") and ".weight" in row.name)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_of_dropout_are_found(mistake: str, worker: Worker, tmp_path: Path) -> None:
    """Prediction does not show them, nor does training without dropout."""
    written, words = MISTAKES[mistake]
    case = case_of(RIGHT)
    result = cases.check(replace(case, written=written), worker.backend, worker, tmp_path)
    assert not result.ok
    assert result.first is not None and result.first.stage == dropout.STAGE
    assert words in (result.first_divergence or "")


def test_the_factors_of_a_step_change_nothing_and_follow_from_the_seed(worker: Worker, tmp_path: Path) -> None:
    """Also with batch normalisation, of which a forward pass in training updates the averages."""
    topology = network(CONV, ("BatchNormalization", {}), drop(), ("Relu", {}), *END)
    case = case_of(topology)
    side = cases.side_of(case, topology, topology, worker.backend, worker, tmp_path / f"net{worker.backend.formats[0]}")
    side.load(case.spec(side.path, case.solver, lowering=True))
    side.set_weights(case.weights)
    before, state = side.worker.call("get_weights"), side.worker.call("get_weights", state=True)
    drawn = [dropout.draw(side, case.batch, seed) for seed in (5, 5, 6)]
    one, again, other = (each[0] if each else {} for each in drawn)
    assert list(one) == ["l2"]
    assert np.array_equal(one["l2"], again["l2"]) and not np.array_equal(one["l2"], other["l2"])
    after, state_after = side.worker.call("get_weights"), side.worker.call("get_weights", state=True)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert all(np.array_equal(state[name], state_after[name]) for name in state)
    result = cases.check(case, worker.backend, worker, tmp_path)
    assert result.ok, str(result)
    kept = [row.name for row in result.rows if row.stage == dropout.STAGE and "running" in row.name]
    assert sorted(set(kept)) == ["l1.running_mean", "l1.running_var"]


FILES = {
    "caffe": """
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 5 kernel_size: 3 stride: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "thin" type: "Dropout" bottom: "conv" top: "conv" dropout_param {{ dropout_ratio: 0.25 }} }}
layer {{ name: "up" type: "Deconvolution" bottom: "conv" top: "up"
        convolution_param {{ num_output: {channels} kernel_size: 3 stride: 3 weight_filler {{ type: "xavier" }} }} }}
""",
    "torch": """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.up = nn.Conv2d({channels}, 5, 3, 3), nn.ConvTranspose2d(5, {channels}, 3, 3)
        self.again, self.inside = nn.Dropout(0.25), nn.Dropout(0.1, inplace=True)

    def forward(self, x):
        x = self.again(F.relu(self.inside(self.conv(x))))
        return self.up(F.dropout(self.again(x), 0.5, self.training))

model = Net()
""",
    "tensorflow": """
from model import Tower
from utils import model_property
import tensorflow as tf
import utils as digits
slim = tf.contrib.slim

class UserModel(Tower):
    @model_property
    def inference(self):
        net = slim.conv2d(self.x, 5, [3, 3], 3, 'VALID', scope='conv')
        net = net + slim.dropout(net, 0.9, is_training=self.is_training, scope='beside')
        # a flattened image, whose channels are last here, and dropout of dropout
        net = slim.dropout(slim.flatten(net), 0.75, is_training=self.is_training, scope='thin')
        net = slim.dropout(net, 0.5, is_training=self.is_training, scope='thinner')
        net = slim.fully_connected(net, 12, scope='dense')
        net = slim.dropout(net, 0.6, is_training=self.is_training)
        net = slim.fully_connected(net, 9 * 9 * 3, activation_fn=None, scope='wide')
        return tf.reshape(net, [-1, *self.x.shape.as_list()[1:]])

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
""",
}
DROPOUTS = {"caffe": 1, "torch": 4, "tensorflow": 4}


def test_dropout_in_a_users_own_file_is_compared(backend: str, tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (12, 9, 9, 3), np.uint8)
    data = small_dataset(tmp_path, images)
    path = tmp_path / f"net{registry.get(backend).formats[0]}"
    path.write_text(FILES[backend].format(channels=3) if backend != "tensorflow" else FILES[backend])
    result = multiseg.check_parity(
        data, [backend], path, steps=1, loss="l2", batch_size=8, learning_rate=1e-7, threads=1, subtract_mean="none"
    )
    assert result.ok and result.complete, str(result)
    rows = [row for row in result.rows if row.stage == dropout.STAGE]
    topology = multiseg.describe(path, (3, 9, 9))
    dropouts = {layer.name for layer in topology.layers if layer.type == "Dropout"}
    assert len(dropouts) == DROPOUTS[backend]
    gradients = {f"gradient of {name}" for name in topology.weights}
    assert {row.name for row in rows if row.step is None} == dropouts | gradients
    assert {row.name for row in rows if row.step == 1} == dropouts | set(topology.weights)


def small_dataset(folder: Path, images: Any) -> multiseg.Dataset:
    """Return a dataset of images that are their own labels."""
    from PIL import Image

    (folder / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
    return multiseg.Dataset.create(folder / "dataset", input=folder / "images", target=folder / "images", seed=1)
