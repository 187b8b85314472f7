"""What TensorFlow's files are described as: computed from the description and the neutral weights, it is what they compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import neutral_math
from helpers.tensorflow_files import model, network
from multiseg.topology import Topology

pytestmark = pytest.mark.needs("tensorflow")

NETS = Path(__file__).parents[2] / "nets"
SHAPES = {
    "lenet": (1, 28, 28), "alexnet": (3, 67, 67), "inception": (3, 32, 32), "autoencoder": (1, 32, 32),
    "fcn8s": (3, 64, 64),
}  # fmt: skip


def described(path: Path, shape: tuple[int, int, int]) -> dict[str, Any]:
    from multiseg_tensorflow.reader import describe

    return describe(str(path), list(shape))


def check(path: Path, loaded: Any, shape: tuple[int, int, int]) -> Topology:
    """The network's output is what its description says, with other weights than it began with; names and shapes agree."""
    draw = np.random.default_rng(3)
    weights = {
        name: (draw.uniform(0.5, 1.5, value.shape) if name.endswith("running_var") else
               draw.normal(0, np.sqrt(1 / max(np.prod(value.shape[1:]), 1)), value.shape)).astype(np.float32)
        for name, value in loaded.get_weights().items()
    }  # fmt: skip
    loaded.set_weights(weights)
    back = loaded.get_weights()
    assert all(np.array_equal(back[name], value) for name, value in weights.items())
    x = draw.normal(size=(2, *shape)).astype(np.float32)
    output, *_ = loaded.predict(x.transpose(0, 2, 3, 1), None)
    description = described(path, shape)
    expected = neutral_math.run(description, weights, x)
    made = output.transpose(0, 3, 1, 2).reshape(expected.shape)
    assert np.abs(made - expected).max() < 2e-5 * max(np.abs(expected).max(), 1)
    topology = Topology.of(path.name, "test", description)
    assert {name: tuple(value.shape) for name, value in weights.items()} == dict(topology.weights)
    return topology


@pytest.mark.parametrize("name", SHAPES)
def test_users_networks_compute_what_their_description_says(name: str) -> None:
    from multiseg_tensorflow.network import Network

    from multiseg.network import NetworkSpec

    path, shape = NETS / f"{name}_tensorflow.py", SHAPES[name]
    loaded = Network(NetworkSpec(
        model=str(path), input_shape=shape, label_shape=(1, 1, 1), solver=None, loss=None, seed=1, batch_size=None,
        val_batch_size=None, threads=2, device="cpu", lowering=True,
    ))  # fmt: skip
    check(path, loaded, shape)


# what a file's inference is -> the types it is described as
LAYERS = {
    # strides that do not divide, even kernels, holes
    "return slim.conv2d(self.x, 2, [3, 4], stride=[2, 3], activation_fn=tf.nn.relu6)": "Conv Clip",
    "return slim.conv2d(self.x, 2, [4, 4], stride=3, padding='VALID', activation_fn=tf.nn.elu)": "Conv Elu",
    "return slim.conv2d(self.x, 2, [3, 3], rate=2, activation_fn=None)": "Conv",
    "return tf.nn.atrous_conv2d(self.x, tf.get_variable('w', [3, 3, 1, 2]), 2, 'VALID')": "Conv",
    "w = tf.get_variable('w', [3, 3, 1, 2])\n"
    "return tf.nn.conv2d(self.x, w, [1, 1, 1, 1], [[0, 0], [2, 1], [0, 3], [0, 0]])": "Conv",
    "return tf.nn.depthwise_conv2d(slim.conv2d(self.x, 3, [1, 1]), tf.get_variable('w', [3, 3, 3, 2]), [1, 2, 2, 1], "
    "'SAME')": "Conv Relu Conv",
    "return slim.separable_conv2d(slim.conv2d(self.x, 3, [1, 1]), 4, [3, 3], 1)": "Conv Relu Conv Conv Relu",
    # transposed: SAME and VALID, kernels smaller and larger than the stride, a size that was asked for
    "return slim.conv2d_transpose(self.x, 2, [3, 3], stride=2, activation_fn=None)": "ConvTranspose",
    "return slim.conv2d_transpose(self.x, 2, [5, 4], stride=2, padding='VALID')": "ConvTranspose Relu",
    "return slim.conv2d_transpose(self.x, 2, [2, 2], stride=3)": "ConvTranspose Relu",
    "return slim.conv2d_transpose(self.x, 2, [2, 2], stride=3, padding='VALID')": "ConvTranspose Relu",
    "small = slim.conv2d(self.x, 2, [3, 3], stride=3, activation_fn=None)\n"
    "size = tf.stack([tf.shape(self.x)[0], 7, 8, 1])\n"
    "return tf.nn.conv2d_transpose(small, tf.get_variable('w', [4, 4, 1, 2]), size, [1, 3, 3, 1], 'SAME')":
        "Conv ConvTranspose",
    # pooling that sees past the border
    "return slim.max_pool2d(self.x, [3, 2], stride=3, padding='SAME')": "MaxPool",
    "return slim.avg_pool2d(self.x, [3, 3], stride=2, padding='SAME')": "AveragePool",
    "return tf.reduce_mean(slim.conv2d(self.x, 3, [3, 3]), [1, 2], keep_dims=True)": "Conv Relu GlobalAveragePool",
    "return slim.fully_connected(tf.reduce_mean(slim.conv2d(self.x, 3, [3, 3]), [1, 2]), 5)":
        "Conv Relu ReduceMean Gemm Relu",
    "n = tf.tanh(tf.reduce_sum(slim.conv2d(self.x, 3, [3, 3]), 3))\nreturn tf.reduce_mean(n + tf.nn.relu(n), 2)":
        "Conv Relu ReduceSum Tanh Relu Sum ReduceMean",
    "n = tf.transpose(tf.reduce_mean(slim.conv2d(self.x, 3, [3, 3]), [1]), [0, 2, 1])\n"
    "return tf.reduce_mean(tf.tanh(n), 2)": "Conv Relu ReduceMean Tanh ReduceMean",
    # normalisation
    "return tf.nn.lrn(slim.conv2d(self.x, 9, [3, 3]), 2, bias=1.5, alpha=0.3, beta=0.6)": "Conv Relu LRN",
    "return slim.batch_norm(slim.conv2d(self.x, 3, [3, 3], activation_fn=None), is_training=self.is_training)":
        "Conv BatchNormalization",
    "return slim.batch_norm(self.x, is_training=self.is_training, scale=True, fused=False, epsilon=0.01)":
        "BatchNormalization",
    "return slim.batch_norm(self.x, is_training=tf.constant(self.is_training), center=False, scale=True)":
        "BatchNormalization",
    "return tf.layers.batch_normalization(self.x, training=self.is_training)": "BatchNormalization",
    # elements
    "n = slim.conv2d(self.x, 4, [3, 3], activation_fn=tf.nn.tanh)\nn = tf.maximum(0.2 * n, n) - 0.5\n"
    "return tf.nn.softplus(tf.clip_by_value(n / 4, -1., 0.1)) * 3": "Conv Tanh LeakyRelu Add Mul Clip Softplus Mul",
    "return tf.nn.leaky_relu(tf.abs(self.x) ** 2, 0.3) + tf.maximum(self.x, 0)": "Abs Pow LeakyRelu Relu Sum",
    "n = slim.conv2d(self.x, 3, [3, 3])\nreturn tf.add_n([n, n * n, tf.maximum(n, n * n)]) - n":
        "Conv Relu Mul Mul Max Sum Sub",
    "n = slim.conv2d(self.x, 3, [1, 1], activation_fn=None)\n"
    "return n * tf.get_variable('factor', [3]) + tf.get_variable('offset', [3])": "Conv Scale",
    "return tf.nn.swish(slim.conv2d(self.x, 3, [3, 3], activation_fn=None))": "Conv Swish",
    "n = self.x * tf.sigmoid(self.x)\nreturn tf.sigmoid(n * 1.5) * n": "Swish Swish",
    "gate = tf.sigmoid(2. * self.x)\nreturn self.x * gate + gate": "Mul Sigmoid Mul Sum",
    # axes
    "a, b = tf.split(slim.conv2d(self.x, 5, [3, 3]), [2, 3], 3)\nreturn tf.concat([b, a, self.x], -1)":
        "Conv Relu Split Concat",
    "n = tf.pad(self.x, [[0, 0], [1, 2], [0, 3], [0, 0]])\nreturn tf.slice(n[:, 1:-1, 2:], [0, 0, 0, 0], [-1, 7, 6, 1])":
        "Pad Slice Slice",
    "return tf.pad(self.x, [[0, 0], [1, 2], [2, 1], [0, 0]], mode='REFLECT')": "Pad",
    "n = digits.nhwc_to_nchw(self.x)\nreturn digits.nchw_to_nhwc(tf.concat([n, tf.nn.relu(n)], 1))": "Relu Concat",
    "return tf.transpose(slim.conv2d(self.x, 3, [3, 3]), [0, 2, 1, 3])": "Conv Relu Transpose",
    "return tf.nn.softmax(slim.conv2d(self.x, 3, [3, 3]))": "Conv Relu Softmax",
    "n = slim.conv2d(self.x, 3, [3, 3])\nreturn tf.reshape(tf.nn.log_softmax(tf.reshape(n, [-1, 3])), tf.shape(n))":
        "Conv Relu LogSoftmax",
    # vectors, flattened from images and made into images
    "n = slim.flatten(slim.conv2d(self.x, 3, [3, 3], stride=2))\nreturn slim.fully_connected(n, 5)":
        "Conv Relu Flatten Gemm Relu",
    "n = tf.nn.relu(slim.flatten(slim.conv2d(self.x, 3, [3, 3], activation_fn=None)))\n"
    "n = tf.layers.dense(n, 6, activation=tf.nn.sigmoid)\nn = slim.fully_connected(n, 4 * 4 * 3)\n"
    "return slim.conv2d_transpose(tf.reshape(n, [-1, 4, 4, 3]), 1, [4, 4], stride=2, activation_fn=None)":
        "Conv Flatten Relu Gemm Sigmoid Gemm Relu Reshape ConvTranspose",
    "n = slim.flatten(slim.conv2d(self.x, 3, [3, 3]))\nreturn tf.nn.softmax(n)": "Conv Relu Transpose Flatten Softmax",
    "n = slim.flatten(slim.conv2d(self.x, 3, [3, 3]))\nn = slim.fully_connected(n, 12)\n"
    "return tf.concat([n, slim.flatten(tf.reshape(n, [-1, 2, 2, 3]))], 1)":
        "Conv Relu Flatten Gemm Relu Reshape Transpose Transpose Flatten Concat",
    "return tf.layers.dense(slim.conv2d(self.x, 3, [3, 3]), 2)": "Conv Relu Conv",
    # sizes
    "return tf.image.resize_bilinear(self.x, [5, 13])": "Resize",
    "return tf.image.resize_bilinear(self.x, [5, 13], align_corners=True)": "Resize",
    "return tf.image.resize_images(self.x, [14, 4], method=tf.image.ResizeMethod.NEAREST_NEIGHBOR)": "Resize",
}  # fmt: skip


@pytest.mark.parametrize("inference", LAYERS)
def test_layers_compute_what_their_description_says(tmp_path: Path, inference: str) -> None:
    loaded = network(tmp_path, model(inference), solver=None, input_shape=(1, 7, 8))
    topology = check(tmp_path / "net.py", loaded, (1, 7, 8))
    assert " ".join(layer.type for layer in topology.layers) == LAYERS[inference]


ENLARGED = (  # by up to three rows and columns, more than `like`
    "like = tf.nn.relu(self.x)\nn = slim.max_pool2d(self.x, [4, 4], stride=4, padding='SAME')\n"
    "n = slim.conv2d_transpose(n, 1, [4, 4], stride=4, padding='VALID', activation_fn=None)\n"
)


@pytest.mark.parametrize(
    "rest",
    [
        "return tf.concat([like, n[:, :like.shape[1], :like.shape[2], :]], 3)",
        "_, height, width, _ = like.shape.as_list()\nreturn tf.slice(n, [0, 0, 0, 0], [-1, height, width, -1]) + like",
        "size = tf.shape(like)\nreturn like * n[:, :size[1], :size[2]]",
        "return n[:, :self.input_shape[0], :self.input_shape[1]]",  # to the image
        "n, like = tf.transpose(n, [0, 3, 1, 2]), tf.transpose(like, [0, 3, 1, 2])\n"
        "return tf.transpose(tf.concat([n[:, :, :like.shape[2], :like.shape[3]], like], 1), [0, 2, 3, 1])",
    ],
)
@pytest.mark.parametrize("size", [(7, 6), (8, 8)])  # at the second, nothing is cut off
def test_a_slice_to_another_values_size_is_a_crop(tmp_path: Path, rest: str, size: tuple[int, int]) -> None:
    loaded = network(tmp_path, model(ENLARGED + rest), solver=None, input_shape=(1, *size))
    topology = check(tmp_path / "net.py", loaded, (1, *size))
    (crop,) = (layer for layer in topology.layers if layer.type in ("Crop", "Slice", "Identity"))
    assert (crop.type, crop.parameters) == ("Crop", {"axis": 2, "offset": [0]})
    assert crop.inputs[1] == ("data" if "self.input" in rest else "Relu")


@pytest.mark.parametrize(
    "rest",
    [
        "return tf.concat([like, n[:, :7, :7]], 3)",  # numbers
        "start = (int(n.shape[1]) - 7) // 2\nreturn tf.concat([like, n[:, start:start + 7, start:start + 7]], 3)",
        "return tf.concat([like[:, :6, :7], n[:, :6, :like.shape[2]]], 3)",
        "start = int(like.shape[1]) // 7\n"
        "return n[:, start:start + int(like.shape[1]), 1:1 + int(like.shape[2])]",  # 1 or more, by the image's size
    ],
)
def test_a_slice_that_is_no_crop_at_another_size_is_one_of_numbers(tmp_path: Path, rest: str) -> None:
    loaded = network(tmp_path, model(ENLARGED + rest), solver=None, input_shape=(1, 7, 7))
    topology = check(tmp_path / "net.py", loaded, (1, 7, 7))
    assert {layer.type for layer in topology.layers} & {"Crop", "Slice"} == {"Slice"}


def test_layers_that_share_variables_are_named(tmp_path: Path) -> None:
    lines = (
        "with tf.variable_scope('s', reuse=tf.AUTO_REUSE):\n    a = slim.conv2d(self.x, 1, [3, 3], scope='c')\n"
        "    a = slim.conv2d(a, 1, [3, 3], scope='c')\nreturn slim.conv2d(a, 1, [3, 3], scope='d')"
    )
    path = tmp_path / "net.py"
    path.write_text(model(lines))
    found = Topology.of(path.name, "test", described(path, (1, 8, 8)))
    first, second = found.shared_weights
    assert (first, second) == ("s.c", "s.c_1")


def test_a_reduction_whose_axes_are_left_in_tensorflows_order_is_no_sum_of_the_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(model("return tf.reduce_mean(tf.reduce_sum(slim.conv2d(self.x, 3, [3, 3]), 2), 1)"))
    found = Topology.of(path.name, "test", described(path, (1, 7, 8)))
    reduction = found.layers[2]
    assert (reduction.type, reduction.shapes) == ("tf.Sum", ((7, 3),))  # (N, H, C)


# what a file's inference is -> types of the layers with the places of their inputs in the list, from 1 for the first layer
DROPOUTS = {
    "net = slim.conv2d(self.x, 3, [3, 3], activation_fn=None)\nreturn net + slim.dropout(net, 0.5, is_training=self.is_training)":
        "Conv(0) Dropout(1) Sum(1,2)",
    "net = tf.identity(slim.conv2d(self.x, 3, [3, 3], activation_fn=None))\n"
    "net = slim.dropout(net, 0.5, is_training=self.is_training)\nreturn slim.conv2d(net, 3, [1, 1], activation_fn=None)":
        "Conv(0) Dropout(1) Conv(2)",
    "net = tf.nn.swish(slim.conv2d(self.x, 3, [3, 3], activation_fn=None))\n"
    "return slim.dropout(net, 0.5, is_training=self.is_training)": "Conv(0) Swish(1) Dropout(2)",
    "net = slim.dropout(self.x, 0.5, is_training=self.is_training)\n"
    "return slim.dropout(net, 0.8, is_training=self.is_training) - self.x": "Dropout(0) Dropout(1) Sub(2,0)",
    "if self.is_training:\n    self.x = tf.nn.dropout(self.x, 0.5)\n"  # in the name of no layer of the inference graph
    "net = slim.conv2d(self.x, 3, [3, 3], activation_fn=None)\nreturn net * net": "Dropout(0) Conv(1) Mul(2,2)",
    "net = slim.conv2d(self.x, 3, [3, 3], activation_fn=None)\n"
    "other = net * tf.random_uniform([]) if self.is_training else None\n"  # the next product has another name in training
    "return slim.dropout(net, 0.5, is_training=self.is_training) * 2.0": "Conv(0) Dropout(1) Mul(2)",
    "net = tf.reshape(tf.reshape(slim.conv2d(self.x, 2, [3, 3], activation_fn=None), [-1, 112]), [-1, 112])\n"
    "return slim.fully_connected(slim.dropout(net, 0.5, is_training=self.is_training), 2, activation_fn=None)":
        "Conv(0) Transpose(1) Flatten(2) Dropout(3) Gemm(4)",
    "return tf.nn.dropout(slim.conv2d(self.x, 3, [3, 3], activation_fn=None), 0.5)": "Conv(0) Dropout(1)",  # in prediction, too
}  # fmt: skip


@pytest.mark.parametrize("inference", DROPOUTS)
def test_dropout_is_described_where_the_training_graph_has_it(tmp_path: Path, inference: str) -> None:
    path = tmp_path / "net.py"
    path.write_text(model(inference))
    found = Topology.of(path.name, "test", described(path, (1, 7, 8)))
    places = {found.input: 0} | {layer.outputs[0]: number for number, layer in enumerate(found.layers, 1)}
    words = (f"{layer.type}({','.join(str(places[name]) for name in layer.inputs)})" for layer in found.layers)
    assert " ".join(words) == DROPOUTS[inference]
    assert [found.outputs[0]] == list(found.layers[-1].outputs)
