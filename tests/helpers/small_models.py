"""The same small network for each framework: a convolution, dropout, a convolution. Quick, and random while it trains."""

from __future__ import annotations

from pathlib import Path

CAFFE = """
layer { name: "data" type: "Data" top: "data" data_param { batch_size: 8 } }
layer { name: "label" type: "Data" top: "label" data_param { batch_size: 8 } exclude { stage: "deploy" } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "drop1" type: "Dropout" bottom: "conv1" top: "conv1" dropout_param { dropout_ratio: 0.5 } }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
        convolution_param { num_output: 1 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "conv2" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""

TORCH = """
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.drop1 = nn.Dropout(0.5)
        self.conv2 = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x):
        return self.conv2(self.drop1(self.conv1(x).relu()))
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
        net = slim.conv2d(self.x, 8, [3, 3], scope='conv1')
        net = slim.dropout(net, 0.5, is_training=self.is_training)
        return slim.conv2d(net, 1, [3, 3], activation_fn=None, scope='conv2')

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""

FILES = {"caffe": ("small.prototxt", CAFFE), "torch": ("small.py", TORCH), "tensorflow": ("small.py", TENSORFLOW)}
PARAMETERS = {"conv1.weight": (8, 1, 3, 3), "conv1.bias": (8,), "conv2.weight": (1, 8, 3, 3), "conv2.bias": (1,)}


def write(backend: str, folder: Path) -> Path:
    """The network's file for a backend, in ``folder``."""
    name, text = FILES[backend]
    path = folder / name
    path.write_text(text)
    return path
