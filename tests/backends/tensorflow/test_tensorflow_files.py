"""What a DIGITS TensorFlow file may do, and what is said when it cannot be used."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.tensorflow_files import HEAD, LINEAR, LOSS, model, network
from multiseg.errors import ModelError

pytestmark = pytest.mark.needs("tensorflow")

OLD_HEAD = "class UserModel(Tower):\n"
OTHER_IMPORTS = """
import model
import utils
import tensorflow.contrib.layers
import tensorflow.contrib.layers as contrib_layers
from tensorflow.contrib import slim
from tensorflow.contrib.slim import arg_scope
from tensorflow.contrib.layers import xavier_initializer
from tensorflow.python.framework import ops
from utils import mse_loss
import os.path, numpy
import tensorflow as tf
assert tensorflow.placeholder is tf.placeholder and contrib_layers.xavier_initializer is xavier_initializer
assert tf.GraphKeys is ops.GraphKeys and os.path.join("a", "b") and issubclass(model.Tower, object)
digits, model_property = utils, utils.model_property

class UserModel(model.Tower):
"""
LAYERS = """
net = tf.layers.conv2d(self.x, 3, 3, padding='same', name='first')
with tf.variable_scope('block'):
    net = slim.conv2d(net, 2, [1, 1], scope='second')
assert self.x.get_shape()[1].value == 8  # TensorFlow 1's dimensions
net = digits.nchw_to_nhwc(digits.nhwc_to_nchw(net))
return tf.layers.dense(net, 1, name='last')
"""
FLAGS = (
    """
assert self.is_training is (self.is_inference is False) and self.input_shape == [8, 8, 1] and self.nclasses is None
assert (self.y is None) == self.is_inference
"""
    + LINEAR
)


@pytest.mark.parametrize("head", [HEAD, OLD_HEAD, OTHER_IMPORTS], ids=["today", "before", "otherwise"])
def test_every_way_of_importing_works_and_leaves_nothing_behind(tmp_path: Path, head: str) -> None:
    import tensorflow

    before = {name: sys.modules.get(name) for name in ("model", "utils", "tensorflow", "tensorflow.contrib")}
    loaded = network(tmp_path, model(LINEAR, head=head))
    assert loaded.describe()["parameters"] == {"only.weight": [1, 1, 1, 1], "only.bias": [1]}
    assert {name: sys.modules.get(name) for name in before} == before
    assert sys.modules["tensorflow"] is tensorflow and not hasattr(tensorflow, "contrib")


def test_layers_of_every_kind_are_named_neutrally(tmp_path: Path) -> None:
    described = network(tmp_path, model(LAYERS)).describe()
    assert described["parameters"] == {
        "first.weight": [3, 1, 3, 3], "first.bias": [3],
        "block.second.weight": [2, 3, 1, 1], "block.second.bias": [2],
        "last.weight": [1, 2, 1, 1], "last.bias": [1],
    }  # fmt: skip
    assert "loss" not in described  # the core names it by its file


USED = [  # of what DIGITS' users write
    "n = self.x\nfor i in xrange(2): n = slim.conv2d(n, 1, [3, 3])\nreturn n",
    "n = slim.repeat(self.x, 2, slim.conv2d, 4, [3, 3], scope='c')\n"
    "return slim.stack(n, slim.conv2d, [(4, [3, 3]), (1, [1, 1])], scope='s')",
    "n = tf.contrib.layers.instance_norm(tf.contrib.layers.layer_norm(tf.contrib.layers.conv2d(self.x, 4, 3)))\n"
    "return tf.contrib.layers.convolution2d(n, 1, 1, weights_initializer=tf.contrib.layers.variance_scaling_initializer())",
    "with tf.contrib.framework.arg_scope([slim.conv2d], activation_fn=None):\n"
    "    tf.contrib.framework.get_or_create_global_step()\n    return slim.conv2d(self.x, 1, [3, 3])",
    "w = tf.Variable(tf.truncated_normal([3, 3, 1, 1], stddev=0.1))\nb = tf.Variable(tf.constant(0.1, shape=[1]))\n"
    "n = tf.nn.dropout(tf.nn.conv2d(self.x, w, [1, 1, 1, 1], 'SAME') + b, 0.5 if self.is_training else 1.0)\n"
    "self.summaries.append(tf.summary.image('n', n))\ntf.summary.histogram('h', n)\n"
    "tf.contrib.layers.summarize_collection(tf.GraphKeys.WEIGHTS)\nreturn n",
    "n = tf.layers.conv2d(self.x, 4, 3, padding='same', kernel_regularizer=tf.contrib.layers.l2_regularizer(0.1))\n"
    "n = tf.layers.dropout(tf.layers.average_pooling2d(n, 2, 2), 0.3, training=self.is_training)\n"
    "return tf.layers.conv2d_transpose(n, 1, 2, strides=2)",
    "with tf.variable_scope('s', reuse=tf.AUTO_REUSE):\n    a = slim.conv2d(self.x, 1, [3, 3], scope='c')\n"
    "    return slim.conv2d(a, 1, [3, 3], scope='c')",
    "n = tf.map_fn(tf.image.per_image_standardization, self.x)\nreturn slim.conv2d(n, 1, [1, 1])",
    "from tensorflow.contrib.slim.nets import resnet_v1\nwith slim.arg_scope(resnet_v1.resnet_arg_scope()):\n"
    "    n = slim.conv2d(self.x, 4, [3, 3])\nreturn slim.conv2d(n, 1, [1, 1])",
]


@pytest.mark.parametrize("inference", USED)
def test_what_users_write_builds_trains_and_predicts(tmp_path: Path, inference: str) -> None:
    from multiseg_tensorflow.reader import describe

    loaded = network(tmp_path, model(inference))
    x = np.random.default_rng(0).uniform(size=(3, 8, 8, 1)).astype(np.float32)
    before = loaded.get_weights()
    assert np.isfinite(loaded.train_step(x, x, 0.01))
    after = loaded.get_weights()
    assert any(not np.array_equal(after[name], before[name]) for name in before)
    assert loaded.predict(x, None)[0].shape == (3, 8, 8, 1)
    loaded.set_weights(before)
    assert all(np.array_equal(value, before[name]) for name, value in loaded.get_weights().items())
    assert describe(str(tmp_path / "net.py"), [1, 8, 8])["layers"]


def test_a_network_that_is_named_anew_each_time_says_so(tmp_path: Path) -> None:
    loaded = network(tmp_path, model("return tf.keras.layers.Conv2D(1, 3, padding='same')(self.x)"))
    with pytest.raises(ModelError, match=r"net\.py: uses different variable names .* specify names for its layers"):
        loaded.predict(np.zeros((1, 8, 8, 1), np.float32), None)


@pytest.mark.parametrize("solver", [None, {"name": "sgd"}])
def test_a_tower_sees_the_stage(tmp_path: Path, solver: dict[str, str] | None) -> None:
    loaded = network(tmp_path, model(FLAGS), solver=solver)
    output, loss, _ = loaded.predict(np.zeros((2, 8, 8, 1), np.float32), None)
    assert output.shape == (2, 8, 8, 1) and loss is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1\nclass UserModel(Tower:\n", ["line 2", "Python 3"]),
        ("print 'hello'\n", ["line 1", "Python 3"]),
        ("import nosuchmodule\n", ["line 1", "No module named 'nosuchmodule'"]),
        ("import sys\nsys.exit(3)\n", ["line 2", "SystemExit"]),
        ("class Model(Tower):\n    pass\n", ["UserModel(Tower)"]),
        ("class UserModel:\n    pass\n", ["UserModel(Tower)"]),
        (model("return self.x", rest=""), ["no loss", "@model_property"]),
        (OLD_HEAD + LOSS, ["no inference", "@model_property"]),
        (model("return tf.contrib.rnn.LSTMCell(3)"), ["line 11", "tf.contrib.rnn was removed", "slim"]),
        (model("return tf.nosuch(self.x)"), ["line 11", "nosuch"]),
        (model("return self.hidden"), ["line 11", "hidden"]),
        (model("return [self.x]"), ["inference returns", "one tensor"]),
        (model("return tf.reshape(self.x, [-1, 64])"), ["vectors of shape (64,)", "(8, 8, 1)"]),
        (model("return slim.conv2d(self.x, 3, [3, 3], padding='VALID')"), ["(6, 6, 3)", "(8, 8, 1)"]),
        (model(LINEAR, LOSS.replace("digits.mse_loss", "tf.subtract")), ["loss has the shape", "tf.reduce_mean"]),
        (model(LINEAR, LOSS.replace("digits.mse_loss(", "('a', ")), ["loss must return a tensor"]),
        (model(LINEAR, LOSS.replace("self.y", "self.y[:, :3]")), ["line 15", "ValueError"]),
        (model("return self.x"), ["loss does not depend on any trained variable"]),
    ],
)
def test_a_wrong_file_is_named_with_line_and_fix(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        network(tmp_path, text)
    said = str(caught.value)
    assert str(tmp_path / "net.py") in said and "\n" not in said
    assert all(word in said for word in words), said


def test_an_image_too_small_for_the_network_is_an_error_of_the_model(tmp_path: Path) -> None:
    deep = "return slim.conv2d_transpose(slim.conv2d(self.x, 2, [4, 4], 4, 'VALID'), 1, [4, 4], 4, 'VALID')"
    loaded = network(tmp_path, model(deep), solver=None)
    with pytest.raises(ModelError, match=r"net\.py, line 11"):
        loaded.predict(np.zeros((1, 3, 3, 1), np.float32), None)
