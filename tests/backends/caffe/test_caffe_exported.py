"""Exported prototxts in Caffe itself, outside multiseg."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import multiseg
from helpers import pycaffe
from helpers.networks import layer, topology

pytestmark = pytest.mark.needs("caffe")


@pytest.mark.parametrize("label_shape", [(1, 8, 8), (5, 8, 8)])
def test_pycaffe_opens_an_exported_file_for_testing(label_shape: tuple[int, int, int], tmp_path: Path) -> None:
    """caffe.Net(path, caffe.TEST) has the images as its input, and neither labels nor a loss."""
    layers = [
        layer("scores", "Conv", "data", num_output=5, kernel_shape=[1, 1]),
        layer("prob", "Softmax", "scores", axis=1),
    ]
    path = multiseg.export(
        topology(layers, shape=(4, 8, 8)), "caffe", tmp_path / "net.prototxt", label_shape=label_shape
    )
    images = np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    (net,) = pycaffe.run(tmp_path, [{"net": path, "seed": 3, "feed": {"data": images}}])
    assert {name for name in net if name.startswith("data/")} == {"data/data", "data/scores", "data/prob"}
    weight, bias = net["weights/scores/0"].astype(np.float64), net["weights/scores/1"].astype(np.float64)
    powers = np.exp(np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], images) + bias[:, None, None])
    assert net["data/prob"] == pytest.approx(powers / powers.sum(1, keepdims=True), rel=1e-5)
