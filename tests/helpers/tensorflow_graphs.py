"""TensorFlow graphs as users' programs leave them behind, for the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from multiseg.network import NetworkSpec


def tf() -> Any:
    """TensorFlow 1's API, in graph mode."""
    from multiseg_tensorflow import network

    return network.tf


def linear(x: Any) -> Any:
    """One factor and one offset, as in tensorflow_files.LINEAR."""
    v1 = tf()
    kernel = v1.get_variable("only/weights", [1, 1, 1, 1])
    return v1.nn.bias_add(v1.nn.conv2d(x, kernel, [1, 1, 1, 1], "SAME"), v1.get_variable("only/biases", [1]))


def small(x: Any) -> Any:
    """A convolution, batch normalisation, pooling, and a transposed convolution back to the image's size."""
    v1 = tf()
    net = v1.nn.conv2d(x, v1.get_variable("conv/weights", [3, 3, 1, 4]), [1, 1, 1, 1], "SAME")
    scale, offset, mean = (v1.get_variable(f"norm/{name}", [4]) for name in ("gamma", "beta", "moving_mean"))
    variance = v1.get_variable("norm/moving_variance", [4], initializer=v1.ones_initializer())
    net, _, _ = v1.nn.fused_batch_norm(net, scale, offset, mean, variance, is_training=False)
    net = v1.nn.max_pool(v1.nn.relu(net), [1, 2, 2, 1], [1, 2, 2, 1], "SAME")
    kernel = v1.get_variable("up/weights", [4, 4, 1, 4])
    return v1.nn.conv2d_transpose(net, kernel, v1.shape(x), [1, 2, 2, 1], "SAME")


class Written:
    """A graph's files in ``folder``, and what it makes of an image when its own program runs it."""

    def __init__(
        self, folder: Path, build: Callable[[Any], Any], shape: tuple[int | None, ...] = (8, 8, 1), seed: int | None = 1
    ) -> None:
        v1 = tf()
        self.folder = folder
        with v1.Graph().as_default() as graph, v1.Session() as session:
            v1.set_random_seed(seed)
            x = v1.placeholder(v1.float32, [None, *shape], "image")
            output = v1.identity(build(x), name="output")
            self.variables = [variable.op.name for variable in v1.global_variables()]
            session.run(v1.global_variables_initializer())
            images = np.random.default_rng(2).normal(size=(2, *(size or 8 for size in shape))).astype(np.float32)
            fed = {op.outputs[0]: value for op in graph.get_operations() if op.type == "Placeholder"
                   and (value := {"training": False, "keep_prob": 1.0}.get(op.name)) is not None}  # fmt: skip
            self.images, self.expected = images, session.run(output, {x: images, **fed})
            frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["output"])
            (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
            v1.train.write_graph(frozen, str(folder), "frozen.pbtxt")
            v1.train.Saver().save(session, str(folder / "net"))
            v1.saved_model.simple_save(session, str(folder / "saved"), {"x": x}, {"y": output})


KERAS = """
import sys
import keras, numpy as np, tensorflow as tf
keras.utils.set_random_seed(1)
image = keras.Input((8, 8, 1))
net = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(image)
net = keras.layers.BatchNormalization(name="norm")(net)
net = keras.layers.Dropout(0.3)(net)
net = keras.layers.Flatten()(net)
net = keras.layers.Dense(64, name="dense")(net)
model = keras.Model(image, keras.layers.Reshape((8, 8, 1))(net))
model.export(sys.argv[1] + "/exported", verbose=False)
tf.saved_model.save(model, sys.argv[1] + "/saved")
model.save(sys.argv[1] + "/model.keras")
model.save_weights(sys.argv[1] + "/model.weights.h5")
tf.train.Checkpoint(model=model).write(sys.argv[1] + "/numbered")
net, net.conv = tf.Module(), tf.Module()
net.conv.kernel, net.conv.bias = tf.Variable(tf.reshape(tf.range(24.0), [3, 2, 1, 4])), tf.Variable(tf.ones([4]))
tf.train.Checkpoint(net=net).save(sys.argv[1] + "/named")
images = np.random.default_rng(2).normal(size=(2, 8, 8, 1)).astype(np.float32)
np.savez(sys.argv[1] + "/made.npz", images=images, expected=model.predict(images, verbose=0))
"""


def keras(folder: Path) -> Any:
    """A Keras model's files, written by a program of its own; its images and what it makes of them."""
    subprocess.run([sys.executable, "-c", KERAS, str(folder)], check=True, capture_output=True, timeout=300)
    return np.load(folder / "made.npz")


def load(path: Path, **settings: Any) -> Any:
    from multiseg_tensorflow.network import Network

    spec = NetworkSpec(
        model=str(path), input_shape=(1, 8, 8), label_shape=(1, 8, 8), solver={"name": "sgd"}, loss=None, seed=1,
        batch_size=None, val_batch_size=None, threads=2, device="cpu", lowering=True,
    )  # fmt: skip
    return Network(replace(spec, **settings))


def describe(path: Path) -> dict[str, Any]:
    from multiseg_tensorflow.reader import describe

    return describe(str(path), None)
