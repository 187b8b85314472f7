"""Networks in the style of Long et al. (2015): the image is padded generously, and the output is cropped at a constant offset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg.errors import SettingsError

CAFFE = """
layer { name: "data" type: "Data" top: "data" }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 3 pad: 20
        weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool1" type: "Pooling" bottom: "conv" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "pool2" type: "Pooling" bottom: "pool1" top: "pool2" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "score" type: "Convolution" bottom: "pool2" top: "score" convolution_param { num_output: 1 kernel_size: 3
        weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "up" type: "Deconvolution" bottom: "score" top: "up" convolution_param { num_output: 1 kernel_size: 8 stride: 4
        weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "crop" type: "Crop" bottom: "up" bottom: "data" top: "crop" crop_param { axis: 2 offset: 17 } }
"""
TORCH = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.score = nn.Conv2d(1, 2, 3, padding=20), nn.Conv2d(2, 1, 3)
        self.pool, self.up = nn.MaxPool2d(2, ceil_mode=True), nn.ConvTranspose2d(1, 1, 8, 4)

    def forward(self, x):
        up = self.up(self.score(self.pool(self.pool(torch.relu(self.conv(x))))))
        return up[:, :, 17:17 + x.size(2), 17:17 + x.size(3)]

def network(params):
    return {"model": Net()}
"""
TENSORFLOW = """
import tensorflow as tf

class UserModel(Tower):
    @model_property
    def inference(self):
        net = tf.pad(self.x, [[0, 0], [20, 20], [20, 20], [0, 0]])
        net = slim.conv2d(net, 2, [3, 3], padding='VALID', scope='conv')
        for _ in range(2):
            net = tf.nn.max_pool(net, [1, 2, 2, 1], [1, 2, 2, 1], 'SAME')
        net = slim.conv2d(net, 1, [3, 3], padding='VALID', activation_fn=None, scope='score')
        net = slim.conv2d_transpose(net, 1, [8, 8], stride=4, padding='VALID', activation_fn=None, scope='up')
        size = tf.shape(self.x)
        return net[:, 17:17 + size[1], 17:17 + size[2], :]

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""
FILES = {"caffe": ("prototxt", CAFFE), "torch": ("py", TORCH), "tensorflow": ("py", TENSORFLOW)}


def test_tiles_are_the_whole_image(backend: str, dataset: Any, tmp_path: Path) -> None:
    ending, text = FILES[backend]
    (tmp_path / f"net.{ending}").write_text(text)
    described = multiseg.describe(tmp_path / f"net.{ending}", input_shape=(1, 32, 32))
    crop = described.layers[-1]
    assert (crop.type, crop.parameters["offset"] * (3 - len(crop.parameters["offset"]))) == ("Crop", [17, 17])
    job = multiseg.Job(
        dataset=dataset, backend=backend, model=tmp_path / f"net.{ending}", loss="l2", epochs=1, batch_size=36,
        learning_rate=1e-9, seed=1,
    )  # fmt: skip
    pixels = np.random.default_rng(3).integers(0, 256, (101, 150), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    with job.train(tmp_path / "run", progress=False) as run:
        whole = run.test_one(tmp_path / "image.png", resize=False).array
        assert whole.shape == (1, 101, 150) and len(np.unique(whole)) > 1000
        for side in (40, 64, 96):
            tiles = run.test_one(tmp_path / "image.png", resize=False, tile=side).array
            assert np.abs(tiles - whole).max() <= 1e-5 * np.abs(whole).max()
        with pytest.raises(SettingsError, match="tile=20: must be at least"):
            run.test_one(tmp_path / "image.png", resize=False, tile=20)
