"""Weights of Torch7's .t7 files for Caffe: a whole model, which is its own network, and a vector of all parameters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import multiseg
from helpers.t7_writer import Torch, t7, tensor
from multiseg.errors import ModelError
from multiseg.model_files.reading import describe, read_weights

pytestmark = pytest.mark.needs("torch")

SHAPE = (3, 8, 8)
NET = """
return nn.Sequential():add(nn.SpatialConvolution(3, 4, 3, 3, 1, 1, 1, 1)):add(nn.ReLU()):add(nn.View(-1)):add(nn.Linear(256, 5))
"""


def test_a_model_and_a_vector_go_to_caffe(tmp_path: Path, here: None) -> None:
    draw = np.random.default_rng(1)
    kernel, bias = draw.random((4, 3, 3, 3), np.float32), draw.random(4, np.float32)
    dense, offset = draw.random((5, 256), np.float32), draw.random(5, np.float32)
    convolution = Torch(
        "nn.SpatialConvolution", nInputPlane=3, nOutputPlane=4, kW=3, kH=3, dW=1, dH=1, padW=1, padH=1, train=False,
        weight=tensor(kernel), bias=tensor(bias),
    )  # fmt: skip
    view = Torch("nn.View", size=np.array([-1]), numInputDims=3, numElements=1)
    modules = [
        convolution,
        Torch("nn.ReLU", threshold=0, val=0),
        view,
        Torch("nn.Linear", weight=tensor(dense), bias=tensor(offset)),
    ]
    model, vector, net = tmp_path / "model.t7", tmp_path / "vector.t7", tmp_path / "net.lua"
    model.write_bytes(t7(Torch("nn.Sequential", modules=modules)))
    vector.write_bytes(t7(tensor(np.concatenate([each.ravel() for each in (kernel, bias, dense, offset)]))))
    net.write_text(NET)

    expected = {"0.weight": kernel[:, ::-1], "0.bias": bias, "3.weight": dense, "3.bias": offset}
    whole = multiseg.convert(
        model, "caffemodel", tmp_path / "a.caffemodel", input_shape=SHAPE, with_network=tmp_path / "net.prototxt"
    )
    assert whole.reversed == ("0.weight",) and len(describe(tmp_path / "net.prototxt", SHAPE).layers) == 4
    np.testing.assert_equal(dict(read_weights(whole.path)), expected)

    cut = multiseg.convert(vector, "caffemodel", tmp_path / "b.caffemodel", source_network=net, input_shape=SHAPE)
    np.testing.assert_equal(dict(read_weights(cut.path)), expected)
    with pytest.raises(ModelError, match=r"has no parameter of the shape .*; left are parameters \(1397,\)"):
        multiseg.convert(vector, "caffemodel", tmp_path / "c.caffemodel", tmp_path / "net.prototxt", input_shape=SHAPE)
