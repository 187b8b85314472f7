"""Caffe's weights in HDF5 and in 16 bits: what pycaffe and OpenCV write is read."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from helpers import pycaffe
from multiseg.errors import ModelError
from multiseg.model_files import kinds, reading

pytestmark = pytest.mark.needs("caffe")

NETWORK = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
layer { name: "norm" type: "BatchNorm" bottom: "a" top: "b" }
layer { name: "norm_scale" type: "Scale" bottom: "b" top: "c" scale_param { bias_term: true } }
layer { name: "prelu" type: "PReLU" bottom: "c" top: "d" }
layer { name: "up" type: "Deconvolution" bottom: "d" top: "e"
        convolution_param { num_output: 2 kernel_size: 2 stride: 2 bias_term: false } }
layer { name: "dense" type: "InnerProduct" bottom: "e" top: "f" inner_product_param { num_output: 5 transpose: true } }
"""


def test_weights_in_hdf5_are_those_of_the_caffemodel(tmp_path: Path) -> None:
    network, binary, hdf5 = (tmp_path / name for name in ("net.prototxt", "net.caffemodel", "net.caffemodel.h5"))
    network.write_text(NETWORK)
    pycaffe.run(tmp_path, [{"net": str(network), "seed": 3, "save": str(binary), "hdf5": str(hdf5)}])
    assert kinds.kind_of(hdf5, "weights")[1].name == "caffemodel in HDF5"
    expected = reading.read_neutral(binary).weights
    weights = reading.read_neutral(hdf5, network, (3, 6, 6)).weights
    assert expected.keys() == weights.keys()
    assert all(np.array_equal(expected[name], weights[name]) for name in expected)
    # the types of layers are those of the network; without it, all but the transposed weights of the dense layer follow
    alone = reading.read_neutral(hdf5).weights
    assert {name for name in expected if not np.array_equal(expected[name], alone[name])} == {"dense.weight"}
    with h5py.File(hdf5, "a") as file:
        del file["data/conv/0"]
    with pytest.raises(ModelError, match=r"net.caffemodel.h5: the layer 'conv' has the arrays 1 instead of 0, 1"):
        reading.read_neutral(hdf5)


def test_weights_in_16_bits_are_read(tmp_path: Path) -> None:
    network, binary, half = (tmp_path / name for name in ("net.prototxt", "net.caffemodel", "half.caffemodel"))
    network.write_text("\n".join(line for line in NETWORK.splitlines() if "norm" not in line).replace('"c"', '"a"'))
    pycaffe.run(tmp_path, [{"net": str(network), "seed": 3, "save": str(binary)}])
    cv2.dnn.shrinkCaffeModel(str(binary), str(half), ["Convolution", "InnerProduct"])
    assert half.stat().st_size < binary.stat().st_size
    expected, weights = (reading.read_neutral(file).weights for file in (binary, half))
    for name, value in expected.items():
        in_half = name.split(".")[0] in ("conv", "dense")
        assert np.array_equal(weights[name], value.astype(np.float16).astype(np.float32) if in_half else value), name
