"""What a network's layers make, under the names and in the shapes that its file's description has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers.exported import Frameworks, network
from helpers.zoo import NETS, SHAPES, batch, load
from multiseg import backend as registry
from multiseg.exporting import files
from multiseg.layout import Layout

FILES = {"caffe": "{}.prototxt", "torch": "{}_torch.py", "tensorflow": "{}_tensorflow.py"}
# what is nothing when a network predicts, or a view of what is there already
UNSEEN = {"Dropout", "Flatten"}


@pytest.mark.parametrize("net", ["inception", "fcn8s"])
def test_activations_are_those_described(backend: str, net: str) -> None:
    model: Path = NETS / FILES[backend].format(net)
    layout = Layout(registry.get(backend).data_order)
    features: Any = layout.features(batch(net)["features"])
    with load(backend, model, *SHAPES[net], lowering=True) as worker:
        described = multiseg.describe(model, SHAPES[net][0], worker)
        output, _, made = worker.call("predict", features=features, labels=None, activations=True)
    values = {
        name: (layer.type, shape)
        for layer in described.layers
        for name, shape in zip(layer.outputs, layer.shapes, strict=True)
    }
    assert list(made) == [name for name in values if name in made], "in the order of the description"
    assert {values[name][0] for name in values if name not in made} <= UNSEEN
    for name, value in made.items():
        assert layout.activation(value).shape == (3, *values[name][1]), name
    last = made[described.outputs[0]]
    assert np.array_equal(output.reshape(last.shape), last)


FUSED = """
from model import Tower
from utils import model_property
import tensorflow as tf
import utils as digits

class UserModel(Tower):
    @model_property
    def inference(self):
        net = tf.nn.leaky_relu(tf.layers.conv2d(self.x, 8, 1, name="conv1"), 0.25)
        net = tf.nn.elu(tf.layers.conv2d(net, 8, 1, name="conv2"))
        net = tf.nn.relu6(tf.layers.conv2d(net, 8, 1, name="conv3"))
        net = tf.layers.conv2d(net, 8, 1, name="conv4")
        net = net * tf.nn.sigmoid(net)
        net = tf.layers.conv2d(net, 8, 1, name="conv5")
        net = tf.nn.relu(tf.layers.batch_normalization(net, name="norm"))
        return tf.layers.conv2d(net, 1, 1, name="conv6")

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""


@pytest.mark.needs("tensorflow")
def test_tensorflow_shows_what_it_would_fuse(tmp_path: Path) -> None:
    """Each layer is what numpy makes of the one before, though to TensorFlow several of them are one operation."""
    model, draw = tmp_path / "fused.py", np.random.default_rng(3)
    model.write_text(FUSED)
    images = draw.normal(size=(3, 16, 16, 1)).astype(np.float32)
    with load("tensorflow", model, (1, 16, 16), (1, 16, 16)) as worker:
        weights = worker.call("get_weights")
        for name, value in weights.items():
            low = 0.5 if name.startswith("norm") else -1.0  # a variance is above 0
            weights[name] = draw.uniform(low, 1, value.shape).astype(np.float32)
        worker.call("set_weights", weights=weights)
        output, _, made = worker.call("predict", features=images, labels=None, activations=True)
        plain, _, _ = worker.call("predict", features=images, labels=None)

    def conv(name: str, x: Any) -> Any:
        return x @ weights[f"{name}.weight"][:, :, 0, 0].T + weights[f"{name}.bias"]

    x = {name: value.astype(np.float64) for name, value in made.items()}
    norm = {part: weights[f"norm.{part}"] for part in ("weight", "bias", "running_mean", "running_var")}
    scaled = norm["weight"] / np.sqrt(norm["running_var"] + 1e-3) * (x["conv5"] - norm["running_mean"])
    expected = {
        "conv1": conv("conv1", images),
        "LeakyRelu": np.maximum(x["conv1"], 0.25 * x["conv1"]),
        "conv2": conv("conv2", x["LeakyRelu"]),
        "Elu": np.where(x["conv2"] > 0, x["conv2"], np.expm1(x["conv2"])),
        "conv3": conv("conv3", x["Elu"]),
        "Relu6": np.clip(x["conv3"], 0, 6),
        "conv4": conv("conv4", x["Relu6"]),
        "mul": x["conv4"] / (1 + np.exp(-x["conv4"])),  # x * sigmoid(x) is one layer, Swish
        "conv5": conv("conv5", x["mul"]),
        "norm": scaled + norm["bias"],
        "Relu": np.maximum(x["norm"], 0),
        "conv6": conv("conv6", x["Relu"]),
    }
    assert list(made) == list(expected)
    for name, value in expected.items():
        assert np.abs(made[name] - value).max() < 2e-6 * np.abs(value).max(), name
    assert np.array_equal(output, plain)  # what is shown beside it changes nothing
    assert np.abs(output - made["conv6"]).max() < 2e-6 * np.abs(output).max()


@pytest.mark.needs("tensorflow")
def test_layers_of_booleans_of_several_images(tmp_path: Path) -> None:
    """TensorFlow's graph of a threshold has one."""
    topology = network(("ThresholdedRelu", {"alpha": 0.3, "value": -0.5}), shape=(2, 4, 4))
    weights = {name: np.ones(shape, np.float32) for name, shape in topology.weights.items()}
    images = np.random.default_rng(1).normal(size=(3, 2, 4, 4)).astype(np.float32)
    layout = Layout("NHWC")
    frameworks = Frameworks()
    try:
        path = files.export(topology, "tensorflow", tmp_path / "net.py")
        worker = frameworks.load("tensorflow", path, topology, weights)
        output, _, _ = worker.call("predict", features=layout.features(images), labels=None, activations=True)
    finally:
        frameworks.close()
    assert np.allclose(layout.activation(output), np.where(images > 0.3, images, -0.5), rtol=0, atol=1e-6)
