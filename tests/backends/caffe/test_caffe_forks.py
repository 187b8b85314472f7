"""Files of Caffe's forks: what BVLC Caffe can express is described, trained and tested as the same network in its own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from multiseg_caffe import prototxt
from PIL import Image

import multiseg
from multiseg.errors import ModelError
from multiseg.model_files import weights_file

pytestmark = pytest.mark.needs("caffe", "torch")

INPUT = 'input: "data" input_shape { dim: 1 dim: 3 dim: 10 dim: 10 }\n'
FORKS = {
    "round down": (
        'layer { name: "a" type: "Pooling" bottom: "data" top: "a" '
        "pooling_param { pool: MAX kernel_size: 3 stride: 2 ceil_mode: false } }",
        'layer { name: "a" type: "Pooling" bottom: "data" top: "a" '
        "pooling_param { pool: MAX kernel_size: 3 stride: 2 round_mode: FLOOR } }",
    ),
    "round up": (
        'layer { name: "a" type: "Pooling" bottom: "data" top: "a" '
        "pooling_param { pool: AVE kernel_size: 3 stride: 2 ceil_mode: true } }",
        'layer { name: "a" type: "Pooling" bottom: "data" top: "a" '
        "pooling_param { pool: AVE kernel_size: 3 stride: 2 round_mode: CEIL } }",
    ),
    "ReLU6": (
        'layer { name: "a" type: "ReLU6" bottom: "data" top: "a" }',
        'layer { name: "a" type: "Clip" bottom: "data" top: "a" clip_param { min: 0 max: 6 } }',
    ),
    "DepthwiseConvolution": (
        'layer { name: "a" type: "DepthwiseConvolution" bottom: "data" top: "a" '
        "convolution_param { num_output: 3 kernel_size: 3 group: 3 } }",
        'layer { name: "a" type: "Convolution" bottom: "data" top: "a" '
        "convolution_param { num_output: 3 kernel_size: 3 group: 3 } }",
    ),
    "ConvolutionDepthwise": (
        'layer { name: "a" type: "ConvolutionDepthwise" bottom: "data" top: "a" '
        "convolution_param { num_output: 3 kernel_size: 3 } }",
        'layer { name: "a" type: "Convolution" bottom: "data" top: "a" '
        "convolution_param { num_output: 3 kernel_size: 3 group: 3 } }",
    ),
    "precision": (
        "default_forward_type: FLOAT16 default_backward_math: FLOAT global_grad_scale: 1000 eltwise_mem_sharing: false\n"
        'layer { name: "a" type: "Convolution" bottom: "data" top: "a" forward_type: FLOAT cudnn_math_override: 0 '
        'convolution_param { num_output: 2 kernel_size: 3 conv_algos_override: "1,1,1" } }',
        'layer { name: "a" type: "Convolution" bottom: "data" top: "a" '
        "convolution_param { num_output: 2 kernel_size: 3 } }",
    ),
    "scale_bias": (
        'layer { name: "a" type: "BatchNorm" bottom: "data" top: "a" '
        "batch_norm_param { scale_bias: true eps: 0.001 scale_filler { value: 2 } } }",
        'layer { name: "a" type: "BatchNorm" bottom: "data" top: "a" batch_norm_param { eps: 0.001 } }'
        'layer { name: "a_scale" type: "Scale" bottom: "a" top: "a" scale_param { filler { value: 2 } bias_term: true } }',
    ),
}  # fmt: skip


def described(path: Path, text: str) -> Any:
    path.write_text(INPUT + text)
    return multiseg.describe(path)


@pytest.mark.parametrize("kind", FORKS)
def test_it_is_the_network_that_bvlc_caffe_has_words_for(kind: str, tmp_path: Path) -> None:
    fork, own = FORKS[kind]
    one, other = described(tmp_path / "fork.prototxt", fork), described(tmp_path / "own.prototxt", own)
    assert one.layers == other.layers
    assert prototxt.read(str(tmp_path / "fork.prototxt")) == prototxt.read(str(tmp_path / "own.prototxt"))


TRAINED = """
default_forward_type: FLOAT16
layer {{ name: "images" type: "{data}" top: "data" top: "label" {source} }}
layer {{ name: "up" type: "Convolution" bottom: "data" top: "up"
        convolution_param {{ num_output: 3 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "depth" type: "ConvolutionDepthwise" bottom: "up" top: "depth"
        convolution_param {{ num_output: 3 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "depth" top: "bn" batch_norm_param {{ scale_bias: true }} }}
layer {{ name: "relu" type: "ReLU6" bottom: "bn" top: "relu" }}
layer {{ name: "pool" type: "Pooling" bottom: "relu" top: "pool"
        pooling_param {{ pool: MAX kernel_size: 3 stride: 2 ceil_mode: false }} }}
layer {{ name: "score" type: "Deconvolution" bottom: "pool" top: "score"
        convolution_param {{ num_output: 1 kernel_size: 4 stride: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "score" bottom: "label" top: "loss" exclude {{ stage: "deploy" }} }}
"""
SOURCES = {
    "DenseImageData": 'dense_image_data_param { source: "train.txt" batch_size: 4 shuffle: true label_divide_factor: 1 }',
    "ImageSegData": 'image_data_param { source: "train.txt" batch_size: 4 label_type: PIXEL threads: 2 }',
}


@pytest.mark.parametrize("data", SOURCES)
def test_it_trains_in_caffe_and_predicts_what_numpy_and_pytorch_compute(data: str, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    for split in ("input", "target"):
        (tmp_path / split).mkdir()
        for number in range(8):
            values = random.integers(0, 256, (14, 14), np.uint8)
            Image.fromarray(values).save(tmp_path / split / f"{number}.png")
    dataset = multiseg.Dataset.create(
        tmp_path / "dataset", input=tmp_path / "input", target=tmp_path / "target", val_percent=25
    )
    (tmp_path / "net.prototxt").write_text(TRAINED.format(data=data, source=SOURCES[data]))
    job = multiseg.Job(dataset, "caffe", model=tmp_path / "net.prototxt", epochs=2, learning_rate=1e-9,
                       subtract_mean="none")  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        assert run.settings["batch_size"] == 4
        output = run.test_one(tmp_path / "input/0.png").array
        multiseg.convert(run.path, "safetensors", tmp_path / "weights.safetensors")
    content = weights_file.read(tmp_path / "weights.safetensors")
    weights = {name: torch.from_numpy(value.astype(np.float64)) for name, value in content.weights.items()}
    with Image.open(tmp_path / "input/0.png") as image:
        x = torch.from_numpy(np.asarray(image, np.float64))[None, None]
    functional = torch.nn.functional
    x = functional.conv2d(x, weights["up.weight"], weights["up.bias"])
    x = functional.conv2d(x, weights["depth.weight"], weights["depth.bias"], padding=1, groups=3)
    x = functional.batch_norm(x, weights["bn.running_mean"], weights["bn.running_var"], eps=1e-5)
    x = x * weights["bn_scale.weight"][:, None, None] + weights["bn_scale.bias"][:, None, None]
    x = functional.max_pool2d(x.clip(0, 6), 3, 2, ceil_mode=False)
    expected = functional.conv_transpose2d(x, weights["score.weight"], weights["score.bias"], stride=2)[0].numpy()
    assert output.shape == expected.shape == (1, 14, 14)
    assert np.abs(output - expected).max() <= 1e-4 * np.abs(expected).max()


def test_fields_that_contradict_each_other_are_an_error(tmp_path: Path) -> None:
    text = FORKS["round down"][0].replace("ceil_mode: false", "ceil_mode: false round_mode: CEIL")
    with pytest.raises(ModelError, match="layer 'a': ceil_mode and round_mode contradict"):
        described(tmp_path / "net.prototxt", text)
