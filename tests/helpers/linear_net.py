"""A small linear network, two convolutions, as a file for each backend; its loss and gradients in float64 numpy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from helpers.neutral_math import Array, conv

HIDDEN = 4

CAFFE = """
layer {{ name: "data" type: "Data" top: "data" data_param {{ batch_size: 4 }} }}
layer {{ name: "label" type: "Data" top: "label" exclude {{ stage: "deploy" }} data_param {{ batch_size: 4 }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param {{ num_output: {hidden} kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
{between}
layer {{ name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param {{ num_output: {channels} kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "conv2" bottom: "label" top: "loss" exclude {{ stage: "deploy" }} }}
"""
CAFFE_NORM = """
layer { name: "norm" type: "BatchNorm" bottom: "conv1" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "conv1_scaled" scale_param { bias_term: true } }
"""
TORCH = """
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d({channels}, {hidden}, 3, padding=1)
        {between}
        self.conv2 = nn.Conv2d({hidden}, {channels}, 1)

    def forward(self, x):
        return self.conv2({call})

def network(params):
    return {{"model": Small(), "loss": nn.MSELoss()}}
"""
TENSORFLOW = """
from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits

class UserModel(Tower):
    @model_property
    def inference(self):
        with slim.arg_scope([slim.conv2d], activation_fn=None):
            net = slim.conv2d(self.x, {hidden}, [3, 3], scope='conv1')
            {between}
            return slim.conv2d(net, {channels}, [1, 1], scope='conv2')

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""


def write_model(folder: Path, backend: str, channels: int = 1, norm: bool = False) -> Path:
    """The network's file for a backend; with ``norm`` batch normalisation comes after the first convolution."""
    sizes = {"channels": channels, "hidden": HIDDEN}
    if backend == "caffe":
        path, text = folder / "small.prototxt", CAFFE.format(**sizes, between=CAFFE_NORM if norm else "")
        if norm:
            text = text.replace(
                'name: "conv2" type: "Convolution" bottom: "conv1"',
                'name: "conv2" type: "Convolution" bottom: "conv1_scaled"',
            )
    elif backend == "torch":
        path = folder / "small.py"
        between = f"self.norm = nn.BatchNorm2d({HIDDEN})" if norm else ""
        text = TORCH.format(**sizes, between=between, call="self.norm(self.conv1(x))" if norm else "self.conv1(x)")
    else:
        path = folder / "small_tensorflow.py"
        between = "net = slim.batch_norm(net, is_training=self.is_training, scale=True, decay=0.9, scope='norm')"
        text = TENSORFLOW.format(**sizes, between=between if norm else "")
    path.write_text(text)
    return path


def start_weights(channels: int = 1) -> dict[str, npt.NDArray[np.float32]]:
    """Of the small network without normalisation, about 1 in size."""
    draw = np.random.default_rng(5)
    shapes = {
        "conv1.weight": (HIDDEN, channels, 3, 3), "conv1.bias": (HIDDEN,),
        "conv2.weight": (channels, HIDDEN, 1, 1), "conv2.bias": (channels,),
    }  # fmt: skip
    return {name: draw.uniform(-1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


def _part(w: Mapping[str, Array], name: str) -> dict[str, Array]:
    return {key: w[f"{name}.{key}"] for key in ("weight", "bias")}


def _hidden(x: Array, w: Mapping[str, Array]) -> Array:
    return conv({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, _part(w, "conv1"), x)


def output(x: Array, w: Mapping[str, Array]) -> Array:
    """Return the output for images x (N, C, H, W)."""
    return conv({"kernel_shape": [1, 1]}, _part(w, "conv2"), _hidden(x, w))


def gradients(x: Array, w: Mapping[str, Array], slope: Array) -> dict[str, Array]:
    """Return the gradients of the loss, whose derivative by the output is ``slope`` (N, C, H, W)."""
    hidden = _hidden(x, w)
    back = np.einsum("nohw,oi->nihw", slope, w["conv2.weight"][:, :, 0, 0])
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
    return {
        "conv1.weight": np.einsum("nchwij,nohw->ocij", windows, back, optimize=True),
        "conv1.bias": back.sum((0, 2, 3)),
        "conv2.weight": np.einsum("nihw,nohw->oi", hidden, slope)[:, :, None, None],
        "conv2.bias": slope.sum((0, 2, 3)),
    }


def l2_gradients(x: Array, y: Array, w: Mapping[str, Array]) -> dict[str, Array]:
    """Return the gradients of the mean squared difference to y."""
    return gradients(x, w, 2 * (output(x, w) - y) / y.size)
