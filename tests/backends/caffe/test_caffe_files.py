"""Caffe's files without Caffe: what is read from them, and one clear error for each that is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from multiseg_caffe import proto
from multiseg_caffe.kinds import KINDS

from multiseg import describe
from multiseg.cli import main
from multiseg.errors import ModelError
from multiseg.model_files.kinds import kind_of
from multiseg.model_files.reading import read_weights
from multiseg.topology import Topology

NETS = Path(__file__).parents[2] / "nets"
SHAPES = {
    "lenet": (1, 28, 28),
    "alexnet": (3, 67, 67),
    "inception": (3, 32, 32),
    "autoencoder": (1, 32, 32),
    "fcn8s": (3, 64, 64),
}
INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 4 dim: 8 dim: 8 } } }\n'


# caffe.proto's defaults of a pooling layer, which count like stated values in layers beyond the vocabulary
WINDOW = {
    "pad": 0, "pad_h": 0, "pad_w": 0, "kernel_h": 0, "kernel_w": 0, "stride": 1, "stride_h": 0, "stride_w": 0,
    "global_pooling": False, "round_mode": 0,
}  # fmt: skip


def layer(kind: str, more: str = "", bottom: str = "data", top: str = "out", name: str = "it") -> str:
    bottoms = "".join(f' bottom: "{each}"' for each in bottom.split())
    tops = "".join(f' top: "{each}"' for each in top.split())
    return f'layer {{ name: "{name}" type: "{kind}"{bottoms}{tops} {more} }}\n'


def described(folder: Path, text: str, shape: Any = None) -> Topology:
    (folder / "net.prototxt").write_text(text)
    return describe(folder / "net.prototxt", shape)


def conv(more: str) -> str:
    return f"convolution_param {{ {more} }}"


# --- what is read


@pytest.mark.parametrize(
    ("name", "output", "layers", "parameters"),
    [
        ("lenet", (10,), 8, 20 * 25 + 20 + 50 * 20 * 25 + 50 + 500 * 800 + 500 + 10 * 500 + 10),
        ("alexnet", (10,), 23, None),
        ("inception", (10,), 36, None),
        ("autoencoder", (1, 32, 32), 8, 16 * 16 + 16 + 32 * 256 + 32 + 32 * 256 + 16 + 256 + 1),
        ("fcn8s", (5, 64, 64), 29, None),
    ],
)
def test_users_networks_are_described_as_they_are_deployed(
    name: str, output: Any, layers: int, parameters: Any
) -> None:
    topology = describe(NETS / f"{name}.prototxt", SHAPES[name])
    assert (topology.kind, topology.input, topology.input_shape) == ("Caffe prototxt", "data", SHAPES[name])
    assert [topology.shapes[value] for value in topology.outputs] == [output]
    assert len(topology.layers) == layers
    assert parameters in (None, topology.parameter_count)
    assert topology.loss and "label" in topology.loss


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            layer(
                "Convolution",
                conv("num_output: 6 kernel_h: 3 kernel_w: 1 stride: 2 pad_h: 1 pad_w: 0 group: 2 bias_term: false"),
            ),
            [
                (
                    "it",
                    "Conv",
                    {
                        "num_output": 6,
                        "kernel_shape": [3, 1],
                        "strides": [2, 2],
                        "pads": [1, 0, 1, 0],
                        "dilations": [1, 1],
                        "group": 2,
                        "bias_term": False,
                    },
                )
            ],
        ),
        (
            layer(
                "Deconvolution", conv("num_output: 6 kernel_size: 4 kernel_size: 3 stride_h: 2 stride_w: 1 dilation: 2")
            ),
            [
                (
                    "it",
                    "ConvTranspose",
                    {
                        "num_output": 6,
                        "kernel_shape": [4, 3],
                        "strides": [2, 1],
                        "pads": [0, 0, 0, 0],
                        "dilations": [2, 2],
                        "group": 1,
                        "bias_term": True,
                    },
                )
            ],
        ),
        (
            layer("InnerProduct", "inner_product_param { num_output: 3 }"),
            [("it_flatten", "Flatten", {}), ("it", "Gemm", {"num_output": 3, "bias_term": True})],
        ),
        (
            layer("Pooling", "pooling_param { kernel_size: 3 stride: 2 }"),
            [("it", "MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 0, 0], "ceil_mode": True})],
        ),
        (
            layer("Pooling", "pooling_param { pool: AVE kernel_size: 3 pad: 1 round_mode: FLOOR }"),
            [
                (
                    "it",
                    "AveragePool",
                    {
                        "kernel_shape": [3, 3],
                        "strides": [1, 1],
                        "pads": [1, 1, 1, 1],
                        "ceil_mode": False,
                        "count_include_pad": True,
                    },
                )
            ],
        ),
        (layer("Pooling", "pooling_param { pool: AVE global_pooling: true }"), [("it", "GlobalAveragePool", {})]),
        (
            layer("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }"),
            [("it", "StochasticPool", {"pool": 2, "kernel_size": 2, **WINDOW})],
        ),
        (
            layer("LRN", "lrn_param { local_size: 3 alpha: 2 k: 4 }"),
            [("it", "LRN", {"size": 3, "alpha": 2, "beta": 0.75, "bias": 4})],
        ),
        (
            layer("LRN", "lrn_param { alpha: 2 k: 4 norm_region: WITHIN_CHANNEL }"),
            [("it", "LRN", {"size": 5, "alpha": 2, "beta": 0.75, "bias": 1, "within_channel": True})],
        ),
        (layer("ReLU"), [("it", "Relu", {})]),
        (layer("ReLU", "relu_param { negative_slope: 0.25 }"), [("it", "LeakyRelu", {"alpha": 0.25})]),
        (layer("PReLU", "prelu_param { channel_shared: true }"), [("it", "PRelu", {"num_parameters": 1})]),
        (layer("PReLU"), [("it", "PRelu", {"num_parameters": 4})]),
        (layer("ELU", "elu_param { alpha: 2 }"), [("it", "Elu", {"alpha": 2})]),
        (layer("Swish"), [("it", "Swish", {"alpha": 1})]),
        (layer("Swish", "swish_param { beta: 0.5 }"), [("it", "Swish", {"alpha": 0.5})]),
        (layer("BNLL"), [("it", "Softplus", {})]),
        (
            layer("Power", "power_param { scale: 2 shift: -1 power: 3 }"),
            [("it_mul", "Mul", {"value": 2}), ("it_add", "Add", {"value": -1}), ("it", "Pow", {"exponent": 3})],
        ),
        (layer("Power"), [("it", "Identity", {})]),
        (
            layer("Exp", "exp_param { base: 2 shift: 1 }"),
            [
                ("it_mul", "Mul", {"value": pytest.approx(np.log(2))}),
                ("it_add", "Add", {"value": pytest.approx(np.log(2))}),
                ("it", "Exp", {}),
            ],
        ),
        (
            layer("Log", "log_param { base: 10 }"),
            [("it_log", "Log", {}), ("it", "Mul", {"value": pytest.approx(1 / np.log(10))})],
        ),
        (
            layer("BatchNorm", "batch_norm_param { eps: 0.125 }"),
            [("it", "BatchNormalization", {"epsilon": 0.125, "affine": False})],
        ),
        (layer("Scale", "scale_param { bias_term: true }"), [("it", "Scale", {"bias_term": True})]),
        (
            layer("Scale", "scale_param { num_axes: 3 }"),
            [("it", "CaffeScale", {"axis": 1, "num_axes": 3, "bias_term": False})],
        ),
        (layer("Scale", "", "data data"), [("it", "Mul", {})]),
        (layer("Eltwise", "eltwise_param { coeff: 1 coeff: -1 }", "data data"), [("it", "Sub", {})]),
        (
            layer("Eltwise", "eltwise_param { coeff: 1 coeff: 0.5 }", "data data"),
            [("it", "Sum", {"coefficients": [1, 0.5]})],
        ),
        (layer("Eltwise", "eltwise_param { operation: PROD }", "data data"), [("it", "Mul", {})]),
        (layer("Concat", "concat_param { concat_dim: 2 }", "data data"), [("it", "Concat", {"axis": 2})]),
        (layer("Slice", "slice_param { slice_point: 1 }", top="a b"), [("it", "Split", {"axis": 1, "split": [1, 3]})]),
        (layer("Slice", "slice_param { axis: -1 }", top="a b"), [("it", "Split", {"axis": 3, "split": [4, 4]})]),
        (
            layer("Crop", "crop_param { offset: 0 offset: 0 }", "data data"),
            [("it", "Crop", {"axis": 2, "offset": [0, 0]})],
        ),
        (layer("Flatten", "flatten_param { end_axis: 2 }"), [("it", "Reshape", {"shape": [32, 8]})]),
        (
            layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 2 } }"),
            [("it", "Reshape", {"shape": [128, 2]})],
        ),
        (
            layer("Reduction", "reduction_param { operation: ASUM axis: 2 coeff: 3 }"),
            [
                ("it_abs", "Abs", {}),
                ("it_reducesum", "ReduceSum", {"axes": [2, 3], "keepdims": False}),
                ("it", "Mul", {"value": 3}),
            ],
        ),
        (
            layer("MVN", "mvn_param { across_channels: true }"),
            [("it", "MVN", {"normalize_variance": True, "across_channels": True, "eps": pytest.approx(1e-9)})],
        ),
        (layer("Split", top="a b") + layer("Sigmoid", bottom="b", name="that"), [("that", "Sigmoid", {})]),
    ],
)
def test_layers_in_the_neutral_vocabulary(tmp_path: Path, text: str, expected: Any) -> None:
    topology = described(tmp_path, INPUT + text)
    assert [(each.name, each.type, dict(each.parameters)) for each in topology.layers] == expected


def test_a_layer_that_overwrites_its_input_is_a_value_of_its_own(tmp_path: Path) -> None:
    text = (
        layer("ReLU", top="data", name="relu") + layer("TanH", name="tanh") + layer("Sigmoid", name="sigmoid", top="b")
    )
    topology = described(tmp_path, INPUT + text)
    assert [(each.name, each.inputs) for each in topology.layers] == [
        ("relu", ("data",)),
        ("tanh", ("relu",)),
        ("sigmoid", ("relu",)),
    ]
    assert topology.outputs == ("tanh", "sigmoid")


BODY = layer("Convolution", conv("num_output: 2 kernel_size: 1"), top="score", name="conv")


def loss(more: str = "") -> str:
    return layer("SoftmaxWithLoss", more, "score label", "loss", "loss")


def accuracy(more: str) -> str:
    return layer("Accuracy", more, "score label", "accuracy", "accuracy")


def data(include: str) -> str:
    tops = 'top: "data" top: "label"'
    return f'layer {{ name: "d" type: "Data" {tops} include {{ {include} }} data_param {{ batch_size: 3 }} }}\n'


V1_BODY = f'layers {{ name: "c" type: CONVOLUTION bottom: "data" top: "score" {conv("num_output: 2 kernel_size: 1")} }}'


@pytest.mark.parametrize(
    "text",
    [
        data("phase: TRAIN") + data("phase: TEST") + BODY + loss() + accuracy("include { phase: TEST }"),
        data('stage: "train"') + data('stage: "val"') + BODY + loss('exclude { stage: "deploy" }'),
        data('not_stage: "deploy"') + BODY + loss('include { not_stage: "deploy" }'),
        BODY + loss("include { min_level: 1 }") + accuracy('include { phase: TRAIN stage: "val" }'),
        'input: "data" input_dim: 1 input_dim: 4 input_dim: 8 input_dim: 8\n' + BODY,
        'input: "data" input_shape { dim: 5 dim: 4 dim: 8 dim: 8 }\n' + BODY,
        'name: "x" input: "data" ' + BODY,  # without a size
        INPUT + 'layer { name: "l" type: "Input" top: "label" }' + BODY + loss(),
        'input: "data" input_dim: 1 input_dim: 4 input_dim: 8 input_dim: 8\n' + V1_BODY,
        INPUT.replace('"data"', '"image"') + BODY.replace('"data"', '"image"'),
        # a second head of less weight, and what only losses read
        BODY
        + layer("Flatten", top="flat", name="flat")
        + loss()
        + layer("InnerProduct", "inner_product_param { num_output: 2 }", top="aux", name="aux")
        + layer("SoftmaxWithLoss", "loss_weight: 0.3", "aux label", "loss2", "loss2"),
    ],
)
def test_every_way_to_write_a_network_is_one_network(tmp_path: Path, text: str) -> None:
    topology = described(tmp_path, text, (4, 8, 8))
    assert [(each.type, each.shapes) for each in topology.layers] == [("Conv", ((2, 8, 8),))]
    assert topology.outputs == (topology.layers[0].name,)


def test_a_scale_of_the_data_is_a_layer(tmp_path: Path) -> None:
    def scaled(phase: str, factor: float) -> str:
        return data(f"phase: {phase}").replace("data_param", f"transform_param {{ scale: {factor} }} data_param")

    for test in (data("phase: TEST"), scaled("TEST", 0.5)):  # what training alone states applies to testing as well
        first, *_ = described(tmp_path, scaled("TRAIN", 0.5) + test + BODY + loss(), (4, 8, 8)).layers
        assert (first.name, first.type, dict(first.parameters)) == ("data_scale", "Mul", {"value": 0.5})
    for train in (data("phase: TRAIN"), scaled("TRAIN", 0.25)):
        with pytest.raises(ModelError, match=r"scale: 0.5 } differs from that of training"):
            described(tmp_path, train + scaled("TEST", 0.5) + BODY + loss(), (4, 8, 8))


def test_the_losses_in_words(tmp_path: Path) -> None:
    text = BODY + loss("loss_weight: 0.5") + layer("L1Loss", "", "score label", "l1", "l1")
    assert described(tmp_path, text, (4, 8, 8)).loss == (
        "0.5 x softmax cross-entropy, mean over places (score, label) + "
        "absolute difference, summed over elements, mean over images (score, label)"
    )


def test_the_work_grows_with_the_number_of_layers_not_its_square(tmp_path: Path) -> None:
    fillers = 'weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.2 }'
    text, bottom = INPUT, "data"
    calls: dict[int, int] = {}
    for number in range(500):
        if number in (50, 499):  # of 100 and of about 1000 layers
            calls[number] = calls_of(lambda text=text: described(tmp_path, text))
        more = "param { lr_mult: 1 } param { lr_mult: 2 } " + conv(f"num_output: 4 kernel_size: 3 pad: 1 {fillers}")
        text += layer("Convolution", more, bottom, f"c{number}", f"c{number}")
        text += layer("ReLU", "", f"c{number}", f"c{number}", f"r{number}")
        bottom = f"c{number}"
    assert len(described(tmp_path, text).layers) == 1000
    assert calls[499] < 15 * calls[50]  # ten times the layers; a hundred times the calls if it were the square


def calls_of(action: Callable[[], object]) -> int:
    """The number of calls of Python functions that an action makes."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    action()  # what is imported or cached at first
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


# --- what is wrong

V1 = 'layers { name: "it" type: CONVOLUTION bottom: "data" top: "out" }'
BAD = [
    ("missing brace", 'layer { name: "it"\n  type: "ReLU"\n', r"net.prototxt:2:9: "),
    (
        "field",
        'layer {\n  botom: "data"\n}',
        r"net.prototxt:2:3: LayerParameter has no field 'botom'; similar names: bottom",
    ),
    ("nothing like it", "layer { pooling_param { global: 1 } }", r"no field 'global'; (similar|known) names: "),
    (
        "value",
        INPUT + layer("Pooling", "pooling_param { pool: AVG kernel_size: 2 }"),
        r":2:\d+: no value 'AVG'; similar names: AVE",
    ),
    ("number", layer("Pooling", "pooling_param { kernel_size: -2 }"), r":1:\d+: .*[Oo]ut of range"),
    ("text", layer("Pooling", "pooling_param { kernel_size: two }"), r":1:\d+: .*integer"),
    ("twice", 'layer { name: "a" name: "b" }', r":1:\d+: .*multiple \"name\""),
    ("old enum", V1.replace("CONVOLUTION", "CONVOLUTON"), r":1:\d+: no value 'CONVOLUTON'; similar names: CONVOLUTION"),
    (
        "type",
        INPUT + layer("Convolutoin"),
        r"layer 'it' \(Convolutoin\): BVLC Caffe has no layer of this type; similar names: "
        r"Convolution, Deconvolution",
    ),
    (
        "no type",
        INPUT + 'layer { name: "it" bottom: "data" top: "out" }',
        r"layer 'it' \(no type\): BVLC Caffe has no layer of",
    ),
    (
        "bottom",
        INPUT + layer("ReLU", bottom="dota"),
        r"layer 'it' \(ReLU\): reads 'dota', which no previous layer outputs; similar "
        r"names: data",
    ),
    (
        "top",
        INPUT + layer("ReLU") + layer("TanH", name="two"),
        r"layer 'two' \(TanH\): outputs 'out', which layer 'it' outputs already",
    ),
    (
        "name",
        INPUT + layer("PReLU") + layer("PReLU", top="b"),
        r"layer 'it' \(PReLU\): is not the only layer of this name",
    ),
    (
        "in place",
        INPUT + layer("Convolution", conv("num_output: 4 kernel_size: 1"), top="data"),
        r"layer 'it' \(Convolution\): overwrites its input 'data' \(in-place\), which this type does not support",
    ),
    (
        "read elsewhere",
        INPUT + layer("TanH") + layer("ReLU", top="data", name="two"),
        r"layer 'two' \(ReLU\): overwrites its input 'data' \(in-place\), which is also read by layer 'it'; give its top another "
        r"name",
    ),
    (
        "num_output",
        INPUT + layer("Convolution", conv("kernel_size: 3")),
        r"leaves num_output of layer 'it' open, which is the number of classes; specify classes=N",
    ),
    (
        "num_output beyond Caffe's",
        INPUT + layer("Convolution", conv("num_output: 4294967295 kernel_size: 1")),
        r"layer 'it' \(Convolution\): would output .*4294967295.*; Caffe's arrays have fewer than 2147483648 elements",
    ),
    (
        "weights beyond Caffe's",
        INPUT + layer("InnerProduct", "inner_product_param { num_output: 2000000000 }"),
        r"layer 'it' \(InnerProduct\): would have weights of .*; Caffe's arrays have fewer than 2147483648 elements",
    ),
    ("kernel", INPUT + layer("Convolution", conv("num_output: 3")), r"has no kernel_size, nor kernel_h and kernel_w"),
    (
        "two kernels",
        INPUT + layer("Convolution", conv("num_output: 3 kernel_size: 3 kernel_h: 1 kernel_w: 1")),
        r"has both kernel_size and kernel_h, kernel_w; Caffe accepts only one of them",
    ),
    (
        "too large",
        INPUT + layer("Convolution", conv("num_output: 3 kernel_size: 9")),
        r"has a 9x9 kernel, larger than its input of 8x8",
    ),
    (
        "groups",
        INPUT + layer("Convolution", conv("num_output: 3 kernel_size: 3 group: 2")),
        r"has 2 groups, which must divide its 4 input and 3 output channels evenly",
    ),
    (
        "filler",
        INPUT + layer("Convolution", conv('num_output: 3 kernel_size: 3 weight_filler { type: "gausian" }')),
        r"weight_filler \{ type: 'gausian' \} is unknown; similar names: gaussian",
    ),
    (
        "std",
        INPUT + layer("Convolution", conv('num_output: 3 kernel_size: 3 weight_filler { type: "gaussian" std: -1 }')),
        r"weight_filler \{ std: -1 \} must be greater than 0",
    ),
    ("no group", INPUT + layer("Convolution", conv("num_output: 3 kernel_size: 3 group: 0")), r"has 0 groups"),
    (
        "reads",
        INPUT + layer("Data"),
        r"layer 'it' \(Data\): reads a dataset, so it cannot read 'data'; remove bottom",
    ),
    (
        "bilinear",
        INPUT + layer("InnerProduct", 'inner_product_param { num_output: 3 weight_filler { type: "bilinear" } }'),
        r"has weight_filler \{ type: 'bilinear' \}, which is for square kernels",
    ),
    (
        "pad",
        INPUT + layer("Pooling", "pooling_param { kernel_size: 2 pad: 2 }"),
        r"has pad 2x2, which must be smaller than its 2x2",
    ),
    (
        "param",
        INPUT + layer("Convolution", "param {} param {}" + conv("num_output: 3 kernel_size: 3 bias_term: false")),
        r"specifies param \{ \} 2 times for 1 arrays of weights",
    ),
    (
        "eltwise",
        INPUT
        + layer("Pooling", "pooling_param { kernel_size: 2 }", top="half")
        + layer("Eltwise", "", "data half", "sum", "sum"),
        r"layer 'sum' \(Eltwise\): needs inputs of one shape, but they are \(1, 4, 8, 8\) and \(1, 4, 7, 7\)",
    ),
    (
        "concat",
        INPUT
        + layer("Pooling", "pooling_param { kernel_size: 2 }", top="half")
        + layer("Concat", "", "data half", "all", "all"),
        r"concatenates along axis 1, but its inputs \(1, 4, 8, 8\) and \(1, 4, 7, 7\) differ in other axes",
    ),
    (
        "crop",
        INPUT + layer("Crop", "crop_param { offset: 1 }", "data data"),
        r"cannot crop \(1, 4, 8, 8\) from \(1, 4, 8, 8\) at offset 1",
    ),
    ("slice", INPUT + layer("Slice", top="a b c"), r"cannot slice 4 into 3 equal parts; specify slice_point"),
    (
        "reshape",
        INPUT + layer("Reshape", "reshape_param { shape { dim: 0 dim: 5 } }"),
        r"cannot reshape \(1, 4, 8, 8\) to \(0, 5\)",
    ),
    ("count", INPUT + layer("Eltwise"), r"has 1 inputs \(bottom\), it needs 2 or more"),
    (
        "recurrent",
        INPUT + layer("LSTM"),
        r"layer 'it' \(LSTM\): only Caffe itself can compute the output shape of this type",
    ),
    ("batch", INPUT + layer("Concat", "concat_param { axis: 0 }", "data data"), r"works across the images of a batch"),
    (
        "inputs",
        'layer { name: "data" type: "Data" top: "more" }\n' + data("") + BODY,
        r"has several inputs, 'more' and 'data'",
    ),
    ("no size", BODY + loss(), r"does not specify the size of its input; set input_shape=\(channels, height, width\)"),
    ("input_dim", 'input: "data" input_dim: 1 input_dim: 2\n' + BODY, r"input_dim four times"),
    ("zero", INPUT.replace("dim: 8", "dim: 0") + layer("ReLU"), r"its input 'data' has the size \(4, 0, 0\)"),
    (
        "both",
        INPUT + layer("ReLU", "include { phase: TEST } exclude { phase: TRAIN }"),
        r"layer 'it': has both include and exclude",
    ),
    ("mixed", V1 + INPUT, r"mixes `layer \{ ... \}` with the older `layers \{ ... \}`"),
    ("2013", 'layers { layer { name: "it" type: "conv" } }', r"is in Caffe's first syntax .* upgrade_net_proto_text"),
    (
        "data tops",
        data("").replace('"data"', '"image"') + BODY,
        r"layer 'd': top 'image' is unknown; name the tops of data layers data",
    ),
    ("nothing", 'name: "empty"\n', r"has no `layer \{ ... \}`"),
    (
        "solver",
        'net: "train_val.prototxt"\nbase_lr: 0.01\n',
        r'is a Caffe solver; specify the file of the network that it trains, "train_val.prototxt"',
    ),
]


@pytest.mark.parametrize(("text", "message"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_a_wrong_prototxt_is_one_clear_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        described(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "net.prototxt"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [each[1] for each in BAD[::8]])
def test_a_wrong_prototxt_is_one_line_at_the_command_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "net.prototxt").write_text(text)
    done = CliRunner().invoke(main, ["describe", str(tmp_path / "net.prototxt")])
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "net.prototxt" in done.stderr and "Traceback" not in done.output


def weights_file(path: Path, **blobs: Any) -> Path:
    net = proto.NetParameter(name="net")
    for name, (shape, count) in blobs.items():
        blob = net.layer.add(name=name, type="Convolution", bottom=["a"], top=["b"]).blobs.add(data=np.arange(count))
        blob.shape.dim.extend(shape)
    path.write_bytes(net.SerializeToString())
    return path


def test_a_caffemodel_is_known_by_its_content(tmp_path: Path) -> None:
    path = weights_file(tmp_path / "weights.bin", conv=((2, 3), 6))
    assert kind_of(path, "weights")[1].name == "caffemodel"
    weights = read_weights(path)
    assert {name: array.tolist() for name, array in weights.items()} == {"conv.weight": [[0, 1, 2], [3, 4, 5]]}
    with pytest.raises(
        ModelError, match=r"weights.bin: is a caffemodel, which contains weights; expected is: .*prototxt"
    ):
        describe(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: p.write_bytes(weights_file(p, conv=((64, 300), 19200)).read_bytes()[:-4000]),
            r"is not a caffemodel, or truncated",
        ),
        (
            lambda p: weights_file(p, conv=((2, 3), 5)),
            r"layer 'conv': weights 0 are 5 numbers for the shape \(2, 3\); the file is damaged",
        ),
        (
            lambda p: p.write_bytes(
                proto.NetParameter(name="x", layer=[{"name": "a", "type": "ReLU"}]).SerializeToString()
            ),
            r"holds no weights",
        ),
        (lambda p: p.write_text(INPUT + layer("ReLU")), r"is a Caffe prototxt, which contains network"),
        (lambda p: p.write_bytes(b""), r"an empty file"),
    ],
)
def test_a_wrong_caffemodel_is_one_clear_error(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "net.caffemodel"
    make(path)
    with pytest.raises(ModelError, match=message) as caught:
        read_weights(path)
    assert str(caught.value).startswith(str(path))


def test_prototxts_are_known_by_their_content(tmp_path: Path) -> None:
    for text in (
        INPUT,
        f"# network\n{V1}",
        'name: "x" layer{name: "a"}',
        'name: "x"\nlayer: {}',
        'base_lr: 0.1\nnet: "a.prototxt"\n',
    ):
        (tmp_path / "net.txt").write_text(text)
        assert kind_of(tmp_path / "net.txt", "network")[1].name == "Caffe prototxt", text
    for text in (
        "return function(p)\n  local layer = {}\nend",
        "import torch\n# layer { }\nnet = 1\n",
        "node { name: 'x' }\n",
    ):
        (prototxt,) = (kind for kind in KINDS if kind.holds == "network")
        assert not prototxt.recognise(text.encode(), tmp_path / "net.txt")
