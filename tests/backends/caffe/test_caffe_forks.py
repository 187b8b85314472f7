"""Files of Caffe's forks: what BVLC Caffe can express is described, trained and tested as the same network in its own words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from multiseg_caffe import losses, prototxt, vectors
from multiseg_caffe.describing import fork_layers
from PIL import Image

import multiseg
from helpers import pycaffe
from multiseg import reference
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
    "Axpy": (
        'layer { name: "f" type: "Pooling" bottom: "data" top: "f" pooling_param { pool: AVE global_pooling: true } }'
        'layer { name: "a" type: "Axpy" bottom: "f" bottom: "data" bottom: "data" top: "a" }',
        'layer { name: "f" type: "Pooling" bottom: "data" top: "f" pooling_param { pool: AVE global_pooling: true } }'
        'layer { name: "a_factors" type: "Reshape" bottom: "f" top: "a_factors" reshape_param { shape { dim: 0 dim: -1 } } }'
        'layer { name: "a_product" type: "Scale" bottom: "data" bottom: "a_factors" top: "a_product" scale_param { axis: 0 } }'
        'layer { name: "a" type: "Eltwise" bottom: "a_product" bottom: "data" top: "a" }',
    ),
    "metrics": (
        'layer { name: "m" type: "SegAccuracy" bottom: "data" bottom: "data" top: "m" seg_accuracy_param { top_k: 1 } }'
        'layer { name: "a" type: "ReLU" bottom: "data" top: "a" }',
        'layer { name: "a" type: "ReLU" bottom: "data" top: "a" }',
    ),
    "transformations": (
        'layer { name: "a" type: "ReLU" bottom: "data" top: "a" transform_param { mirror: true crop_h: 3 resize_param { '
        "prob: 1 resize_mode: WARP height: 300 width: 300 interp_mode: LINEAR interp_mode: AREA } distort_param { "
        "hue_prob: 0.5 } expand_param { prob: 0.5 max_expand_ratio: 4 } emit_constraint { emit_type: CENTER } } }",
        'layer { name: "a" type: "ReLU" bottom: "data" top: "a" transform_param { mirror: true } }',
    ),
}  # fmt: skip
# layers that no Caffe here has: what they compute of numbers x (N, 6, 9, 8)
DESCRIBED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "Permute": ("permute_param { order: 0 order: 2 order: 3 order: 1 }", lambda x: x.transpose(0, 2, 3, 1)),
    "Normalize": (
        "norm_param { across_spatial: false channel_shared: false }",
        lambda x: x / np.sqrt((x**2).sum(1, keepdims=True) + 1e-10),
    ),
    "ShuffleChannel": (
        "shuffle_channel_param { group: 2 }",
        lambda x: x[:, [0, 3, 1, 4, 2, 5]],  # the first of each group, then the second
    ),
    "CropCenter": (
        "crop_center_param { crop_size: 0 crop_size: 1 crop_size: 2 crop_size: 3 }",
        lambda x: x[:, 1:-1, 2:-2, 3:-3],
    ),
}


@pytest.mark.parametrize("kind", DESCRIBED)
def test_a_layer_that_caffe_lacks_is_described_exported_and_named_in_training(kind: str, tmp_path: Path) -> None:
    fields, computed = DESCRIBED[kind]
    file = tmp_path / "net.prototxt"
    file.write_text(
        'input: "data" input_shape { dim: 1 dim: 6 dim: 9 dim: 8 }\n'
        f'layer {{ name: "a" type: "{kind}" bottom: "data" top: "a" {fields} }}'
    )
    topology = multiseg.describe(file)
    x = np.random.default_rng(2).standard_normal((2, 6, 9, 8))
    weights = {name: np.ones(shape) for name, shape in topology.weights.items()}
    made = reference.forward(topology, weights, x).output.value
    assert made.shape == computed(x).shape
    assert np.abs(made - computed(x)).max() <= 1e-7
    for to in ("torch", "tensorflow"):
        multiseg.export(file, to, tmp_path / f"{to}.py")
    net = prototxt.read(str(file))
    with pytest.raises(
        ModelError, match=rf"layer 'a' \({kind}\): is a layer of Caffe's forks.*train it in another framework"
    ):
        fork_layers.check_installed(net, ["Convolution", "BN"], str(file))


def test_a_loss_with_class_weights_is_divided_by_the_number_of_labels(tmp_path: Path) -> None:
    scores = 'layer { name: "s" type: "Convolution" bottom: "data" top: "s" convolution_param { num_output: 2 kernel_size: 1 } }'
    loss = (
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" top: "loss" loss_param { WEIGHTS } }'
    )
    file = tmp_path / "net.prototxt"
    weights = "class_weighting: 0.25 class_weighting: 4 ignore_label: 255"
    file.write_text(scores + loss.replace("WEIGHTS", f"weight_by_label_freqs: true {weights}"))
    objective = multiseg.describe(file, (3, 4, 4)).objective
    assert objective is not None and objective["matrix"] == [[0.25, 0], [0, 4]]
    assert (objective["normalization"], objective["ignore"]) == ("valid", [255])
    file.write_text(scores + loss.replace("WEIGHTS", weights))  # ignored without weight_by_label_freqs
    objective = multiseg.describe(file, (3, 4, 4)).objective
    assert objective is not None and objective["matrix"] is None
    file.write_text(scores + loss.replace("WEIGHTS", "weight_by_label_freqs: true"))
    with pytest.raises(ModelError, match="layer 'loss': weight_by_label_freqs needs class_weighting"):
        multiseg.describe(file, (3, 4, 4))


def test_caffe_computes_class_weights_and_axpy_as_the_forks_do(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    scores, labels = draw.standard_normal((2, 3, 4, 5)), draw.integers(0, 3, (2, 1, 4, 5))
    labels[0, 0, 0] = 255
    factors, y = draw.standard_normal((2, 3, 1, 1)), draw.standard_normal((2, 3, 4, 5))
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {n}' for n in value.shape)} }} }} }}"
        for name, value in (("s", scores), ("label", labels), ("f", factors), ("y", y))
    )
    (tmp_path / "net.prototxt").write_text(
        f'{inputs} layer {{ name: "a" type: "Axpy" bottom: "f" bottom: "s" bottom: "y" top: "a" }}'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "label" top: "loss" loss_param { ignore_label: 255 '
        "weight_by_label_freqs: true class_weighting: 0.25 class_weighting: 1 class_weighting: 4 } }"
    )
    (tmp_path / "own.prototxt").write_text(text_format.MessageToString(prototxt.read(str(tmp_path / "net.prototxt"))))
    feed = {"s": scores, "label": labels, "f": factors, "y": y}
    (made,) = pycaffe.run(tmp_path, [{"net": tmp_path / "own.prototxt", "feed": feed}])
    assert np.abs(made["data/a"] - (factors * scores + y)).max() <= 1e-6
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    counted = labels != 255
    index = np.where(counted, labels, 0)
    terms = np.array([0.25, 1, 4])[index] * np.take_along_axis(logs, index, 1) * counted
    assert abs(made["data/loss"] - -terms.sum() / counted.sum()) <= 1e-6


RESHAPED = {  # a function of a vector that becomes an image
    "Axpy": 'layer { name: "a" type: "Axpy" bottom: "f" bottom: "x" bottom: "y" top: "a" } '
    'layer { name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "t" top: "loss" }',
    "L1Loss": 'layer { name: "loss" type: "L1Loss" bottom: "f" bottom: "m" top: "loss" }',
}


@pytest.mark.parametrize("kind", RESHAPED)
def test_gradients_reach_the_input_of_a_reshape_before_it(kind: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    shapes = {"v": (2, 3), "m": (2, 3, 1, 1), **dict.fromkeys("xyt", (2, 3, 4, 5))}
    feed = {name: draw.standard_normal(shape) for name, shape in shapes.items()}
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
        f"{' '.join(f'dim: {n}' for n in value.shape)} }} }} }}"
        for name, value in feed.items()
    )
    (tmp_path / "net.prototxt").write_text(
        f'{inputs} layer {{ name: "f" type: "Reshape" bottom: "v" top: "f" '
        f"reshape_param {{ shape {{ dim: 0 dim: 3 dim: 1 dim: 1 }} }} }}"
        f"{RESHAPED[kind]}"
    )
    net = losses.with_native(prototxt.read(str(tmp_path / "net.prototxt")))
    net.force_backward = True
    (tmp_path / "own.prototxt").write_text(text_format.MessageToString(net))
    (result,) = pycaffe.run(tmp_path, [{"net": tmp_path / "own.prototxt", "feed": feed, "backward": True}])
    difference = feed["v"][:, :, None, None] * feed["x"] + feed["y"] - feed["t"]
    expected = {  # EuclideanLoss is half the sum of squares / batch size, L1Loss the sum of absolute values / batch size
        "Axpy": (difference * feed["x"]).sum((2, 3)) / 2,
        "L1Loss": np.sign(feed["v"] - feed["m"][:, :, 0, 0]) / 2,
    }
    assert np.abs(result["diff/v"] - expected[kind]).max() <= 1e-5


SHARING = {  # layers whose result shares the array of v's gradient
    "Reshape": 'layer { name: "r" type: "Reshape" bottom: "v" top: "r" reshape_param { shape { dim: 0 dim: 2 dim: 3 dim: 4 } } }',
    "Concat": 'layer { name: "r" type: "Concat" bottom: "v" top: "r" }',
    "Slice": 'layer { name: "r" type: "Slice" bottom: "v" top: "r" }',
}


def test_gradients_pass_a_flatten_after_a_layer_that_shares_its_array(tmp_path: Path) -> None:
    """BVLC's Flatten replaces that array, so that v gets no gradient; the loss is half the sum of squares / batch size."""
    shape = (2, 3, 2, 4)
    v, t = np.random.default_rng(6).standard_normal((2, *shape))
    jobs = []
    for kind, text in SHARING.items():
        for fields in ("", "flatten_param { axis: 1 end_axis: -2 }", "flatten_param { axis: -3 end_axis: 2 }"):
            inputs = "".join(
                f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ '
                f"{' '.join(f'dim: {n}' for n in value.shape)} }} }} }}"
                for name, value in (("v", v), ("t", t.reshape(2, 24) if not fields else t.reshape(2, 6, 4)))
            )
            path = tmp_path / f"{len(jobs)}.prototxt"
            path.write_text(
                f'{inputs}{text}layer {{ name: "f" type: "Flatten" bottom: "r" top: "f" {fields} }}'
                'layer { name: "loss" type: "EuclideanLoss" bottom: "f" bottom: "t" top: "loss" }'
            )
            net = vectors.without_flatten(prototxt.read(str(path)), {"r": (2, 2, 3, 4) if kind == "Reshape" else shape})
            assert [layer.type for layer in net.layer][3] == "Reshape"
            net.force_backward = True
            path.write_text(text_format.MessageToString(net))
            target = t.reshape(2, 24) if not fields else t.reshape(2, 6, 4)
            jobs.append({"net": path, "feed": {"v": v, "t": target}, "backward": True})
    for result in pycaffe.run(tmp_path, jobs):
        assert np.abs(result["diff/v"] - (v - t) / 2).max() <= 1e-6


def test_axpy_and_dropout_of_channels_are_described_and_exported(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(
        f"{INPUT}{FORKS['Axpy'][0]}"
        'layer { name: "d" type: "SpatialDropout" bottom: "a" top: "a" dropout_param { dropout_ratio: 0.25 } }'
    )
    topology = multiseg.describe(file)
    assert topology.layers[-1].type == "Dropout"
    assert topology.layers[-1].parameters == {"ratio": 0.25, "channelwise": True}
    x = np.random.default_rng(2).standard_normal((2, 3, 10, 10))
    made = reference.forward(topology, {}, x).output.value
    assert np.abs(made - (x.mean((2, 3), keepdims=True) * x + x)).max() <= 1e-12
    assert "nn.Dropout2d(0.25)" in multiseg.export(file, "torch", tmp_path / "net.py").read_text()
    multiseg.export(file, "tensorflow", tmp_path / "net_tensorflow.py")


def test_layers_of_detectors_are_named(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        f'{INPUT}layer {{ name: "p" type: "ROIPooling" bottom: "data" top: "p" roi_pooling_param {{ pooled_w: 7 }} }}'
    )
    with pytest.raises(
        ModelError, match=r"net\.prototxt:2:\d+: roi_pooling_param is of a layer of object detection \(ROIPooling"
    ):
        multiseg.describe(tmp_path / "net.prototxt")


CRF = """
layer { name: "c1" type: "Convolution" bottom: "data" top: "c1" convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "splitting" type: "Split" bottom: "c1" top: "unary" top: "Q0" }
layer { name: "crf" type: "MultiStageMeanfield" bottom: "unary" bottom: "Q0" bottom: "data" top: "pred"
        multi_stage_meanfield_param { num_iterations: 10 compatibility_mode: POTTS } }
"""


def test_a_layer_of_an_unknown_fork_is_named_with_the_output_before_it(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(INPUT + CRF)
    with pytest.raises(ModelError) as caught:
        multiseg.describe(file)
    assert (
        "layer 'crf' (MultiStageMeanfield): 'multi_stage_meanfield_param' is of a layer that multiseg does not know; cut the "
        "network before it, with outputs='unary'"
    ) in str(caught.value)
    topology = multiseg.describe(file, outputs=["unary"])
    assert topology.titles == ("unary",) and topology.shapes[topology.outputs[0]] == (5, 10, 10)


def test_a_wrong_field_in_a_layer_is_an_error_that_names_the_layer(tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(INPUT + CRF.replace("kernel_size", "kernel_sise"))
    with pytest.raises(ModelError) as caught:
        multiseg.describe(file)
    message = "layer 'c1' (Convolution): ConvolutionParameter has no field 'kernel_sise'; similar names: kernel_size"
    assert message in str(caught.value)


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
