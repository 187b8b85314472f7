"""Files that compute in NCHW, as for GPUs, are computed in NHWC on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.tensorflow_files import model, network

pytestmark = pytest.mark.needs("tensorflow")


def _net(folder: Path, order: str) -> Any:
    """Convolutions, batch normalisation, pooling, upsampling and a concatenation, from and to NHWC."""
    to, back = ("net = tf.transpose(net, [0, 3, 1, 2])", "net = tf.transpose(net, [0, 2, 3, 1])")
    if order == "NHWC":
        to = back = ""
    folder.mkdir()
    text = model(f"""
net = self.x
{to}
norm = {{'is_training': self.is_training, 'fused': True, 'scale': True, 'data_format': '{order}'}}
with slim.arg_scope([slim.conv2d, slim.conv2d_transpose, slim.max_pool2d], data_format='{order}'):
    first = slim.conv2d(net, 4, [3, 3], normalizer_fn=slim.batch_norm, normalizer_params=norm, scope='first')
    net = slim.conv2d(slim.max_pool2d(first, [2, 2]), 6, [3, 3], scope='second')
    net = slim.conv2d_transpose(net, 4, [4, 4], stride=2, activation_fn=None, scope='up')
    net = tf.concat([first, net], {order.index("C")})
    net = slim.conv2d(net, 2, [1, 1], activation_fn=None, scope='score')
{back}
return net
""")
    return network(folder, text, input_shape=(3, 8, 12), label_shape=(2, 8, 12))


def test_a_file_in_nchw_trains_and_predicts_as_in_nhwc(tmp_path: Path) -> None:
    usual, other = (_net(tmp_path / order, order) for order in ("NHWC", "NCHW"))
    other.set_weights(usual.get_weights())
    draw = np.random.default_rng(0)
    x = draw.normal(size=(4, 8, 12, 3)).astype(np.float32)
    y = draw.normal(size=(4, 8, 12, 2)).astype(np.float32)
    for _ in range(4):  # sums of at most 400 products of float32, near 1
        assert other.train_step(x, y, 0.05) == pytest.approx(usual.train_step(x, y, 0.05), rel=1e-5)
    expected = usual.get_weights()
    for name, value in other.get_weights().items():
        assert value == pytest.approx(expected[name], abs=1e-5), name
    output, _, layers = other.predict(x, None, activations=True)
    expected_output, _, expected_layers = usual.predict(x, None, activations=True)
    assert output == pytest.approx(expected_output, abs=1e-4)
    second = layers["second"]  # in the file's own order
    assert second.shape == (4, 6, 4, 6)
    assert second.transpose(0, 2, 3, 1) == pytest.approx(expected_layers["second"], abs=1e-4)


def test_it_is_computed_in_nhwc(tmp_path: Path) -> None:
    import tensorflow

    tf = tensorflow.compat.v1
    net = _net(tmp_path / "NCHW", "NCHW")
    options, found = tf.RunOptions(output_partition_graphs=True), tf.RunMetadata()
    user = net._main
    x = np.zeros((2, 8, 12, 3), np.float32)
    net._session.run(user.output, {user.x: x}, options, found)
    orders = [
        node.attr["data_format"].s.decode()
        for graph in found.partition_graphs
        for node in graph.node
        if "Conv2D" in node.op or "MaxPool" in node.op
    ]
    assert len(orders) >= 4 and set(orders) == {"NHWC"}
