"""What PyTorch and Torch7 files are described as, and that every shape is the one that PyTorch comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multiseg import backend as registry
from multiseg.errors import ModelError
from multiseg.exporting.source import source
from multiseg.topology import Topology

pytestmark = pytest.mark.needs("torch")


def describe(path: Path, text: str, shape: tuple[int, ...] = (3, 16, 16)) -> Topology:
    from multiseg_torch import reader

    path.write_text(text)
    return Topology.of(path.name, "test", reader.describe(str(path), shape))


def python(tmp_path: Path, forward: str, layers: str = "pass", shape: Any = (3, 16, 16)) -> Topology:
    """A module with these layers and this forward."""
    return describe(
        tmp_path / "net.py",
        "import torch\nfrom torch import nn\nimport torch.nn.functional as F\nclass Net(nn.Module):\n"
        f"    def __init__(self):\n        super().__init__()\n        {layers}\n"
        f"    def forward(self, x):\n        {forward}\n",
        shape,
    )


def said(topology: Topology) -> list[tuple[str, str]]:
    return [(layer.name, layer.type) for layer in topology.layers]


@pytest.mark.parametrize(
    ("forward", "type", "parameters", "shape"),
    [
        ("return F.relu(x)", "Relu", {}, (3, 16, 16)),
        ("return x.relu_()", "Relu", {}, (3, 16, 16)),
        ("return F.leaky_relu(x, 0.2)", "LeakyRelu", {"alpha": 0.2}, (3, 16, 16)),
        ("return F.leaky_relu(x, 0.0)", "LeakyRelu", {"alpha": 0.0}, (3, 16, 16)),
        ("return x.clamp(0, 6)", "Clip", {"min": 0, "max": 6}, (3, 16, 16)),
        ("return F.max_pool2d(x, 3, 2, 1)", "MaxPool",
         {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [1, 1], "ceil_mode": False}, (3, 8, 8)),
        ("return F.avg_pool2d(x, (2, 4), ceil_mode=True)", "AveragePool",
         {"kernel_shape": [2, 4], "strides": [2, 4], "pads": [0, 0, 0, 0], "ceil_mode": True, "count_include_pad": True},
         (3, 8, 4)),
        ("return F.adaptive_avg_pool2d(x, 1)", "GlobalAveragePool", {}, (3, 1, 1)),
        ("return F.adaptive_avg_pool2d(x, (4, 2))", "AveragePool", {"kernel_shape": [4, 8], "strides": [4, 8]}, (3, 4, 2)),
        ("return x.mean((2, 3))", "ReduceMean", {"axes": [2, 3], "keepdims": False}, (3,)),
        ("return x.sum(dim=-1, keepdim=True)", "ReduceSum", {"axes": [3], "keepdims": True}, (3, 16, 1)),
        ("return torch.cat([x, x], -3)", "Concat", {"axis": 1}, (6, 16, 16)),
        ("return x + x", "Sum", {}, (3, 16, 16)),
        ("return torch.add(x, x, alpha=2)", "Sum", {"coefficients": [1, 2]}, (3, 16, 16)),
        ("x += 3\n        return x", "Add", {"value": 3}, (3, 16, 16)),
        ("return x - 3", "Add", {"value": -3}, (3, 16, 16)),
        ("return x / 4", "Mul", {"value": 0.25}, (3, 16, 16)),
        ("return 2 * x", "Mul", {"value": 2}, (3, 16, 16)),
        ("return x * x", "Mul", {}, (3, 16, 16)),
        ("return torch.max(x, x)", "Max", {}, (3, 16, 16)),
        ("return x ** 3", "Pow", {"exponent": 3}, (3, 16, 16)),
        ("return x.view(x.size(0), -1)", "Flatten", {}, (768,)),
        ("return torch.flatten(x, 1)", "Flatten", {}, (768,)),
        ("return x.reshape(-1, 6, 8, 16)", "Reshape", {"shape": [6, 8, 16]}, (6, 8, 16)),
        ("return x.permute(0, 2, 3, 1)", "Transpose", {"perm": [0, 2, 3, 1]}, (16, 16, 3)),
        ("return x.transpose(-1, 1)", "Transpose", {"perm": [0, 3, 2, 1]}, (16, 16, 3)),
        ("return x[:, :2, 1:-1]", "Slice", {"axes": [1, 2], "starts": [0, 1], "ends": [2, 15]}, (2, 14, 16)),
        ("return x[..., 3:]", "Slice", {"axes": [3], "starts": [3], "ends": [16]}, (3, 16, 13)),
        ("return x.narrow(1, 1, 2)", "Slice", {"axes": [1], "starts": [1], "ends": [3]}, (2, 16, 16)),
        ("return F.pad(x, (1, 2, 3, 4))", "Pad", {"pads": [3, 1, 4, 2], "mode": "constant", "value": 0}, (3, 23, 19)),
        ("return F.pad(x, (-1, -2, 0, -3))", "Slice", {"axes": [2, 3], "starts": [0, 1], "ends": [13, 14]}, (3, 13, 13)),
        ("return F.interpolate(x, scale_factor=2)", "Resize",
         {"mode": "nearest", "scales": [2, 2], "coordinates": "asymmetric"}, (3, 32, 32)),
        ("return F.interpolate(x, (5, 7), mode='bilinear', align_corners=True)", "Resize",
         {"mode": "linear", "sizes": [5, 7], "coordinates": "align_corners"}, (3, 5, 7)),
        ("return F.softmax(x, dim=1)", "Softmax", {"axis": 1}, (3, 16, 16)),
        ("return F.local_response_norm(x, 5, k=2.)", "LRN", {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 2}, (3, 16, 16)),
        ("return F.dropout(x, 0.3, self.training)", "Dropout", {"ratio": 0.3}, (3, 16, 16)),
        # beyond the vocabulary, a layer is its function's or its class's name
        ("return torch.cumsum(x, 1)", "cumsum", {"dim": 1}, (3, 16, 16)),
        ("return x + x.mean((2, 3), keepdim=True)", "add", {"alpha": 1}, (3, 16, 16)),
        ("return F.softplus(x, beta=2)", "softplus", {"beta": 2, "threshold": 20}, (3, 16, 16)),
        ("return x[:, 0]", "getitem", {"idx": ["::", 0]}, (16, 16)),
    ],
)  # fmt: skip
def test_a_function_is_a_layer_of_the_vocabulary(
    tmp_path: Path, forward: str, type: str, parameters: Any, shape: tuple[int, ...]
) -> None:
    layer = python(tmp_path, forward).layers[-1]
    assert (layer.type, layer.parameters, layer.shapes) == (type, parameters, (shape,))


@pytest.mark.parametrize(
    "index",
    [
        ":, :, :like.shape[2], :like.shape[3]",
        "..., 0:like.size(-2), :like.size(dim=3):1",
        ":, :, :height, :width",
    ],
)
@pytest.mark.parametrize("size", [16, 15])  # at the first, nothing is cut off
def test_a_slice_to_another_values_size_is_a_crop(tmp_path: Path, index: str, size: int) -> None:
    body = (
        "like = F.relu(x)\n        _, _, height, width = like.size()\n"
        f"        x = F.interpolate(x[..., ::2, ::2], scale_factor=2)\n        return x[{index}]"
    )
    crop = python(tmp_path, body, shape=(3, size, size)).layers[-1]
    assert (crop.type, crop.parameters, crop.inputs[1:]) == ("Crop", {"axis": 2, "offset": [0]}, ("relu",))
    assert crop.shapes == ((3, size, size),)


@pytest.mark.parametrize(
    "index",
    [
        ":, :, :15, :15",  # numbers
        ":, :, :like.shape[2], :15",
        ":, :, :like.shape[3], :like.shape[2]",
        ":, :, :like.shape[2], :other.shape[3]",
        ":, :, :like.shape[2] - 1, :like.shape[3] - 1",
        ":, :, start:start + like.shape[2], start:start + like.shape[3]",  # the start depends on the image's size
        ":, :, 1:2 + like.shape[2], 1:2 + like.shape[3]",
        ":, :2, :like.shape[2], :like.shape[3]",
    ],
)
def test_any_other_slice_is_one_of_numbers(tmp_path: Path, index: str) -> None:
    body = (
        "like, other = F.relu(x), x.abs()\n        x = F.interpolate(x[..., ::2, ::2], scale_factor=2)\n"
        f"        start = like.shape[2] // 8\n        x = F.pad(x, (4, 4, 4, 4))\n        return x[{index}]"
    )
    assert python(tmp_path, body, shape=(3, 15, 15)).layers[-1].type == "Slice"


@pytest.mark.parametrize("start", ["3", "(x.shape[2] - like.shape[2]) // 2"])
def test_a_slice_at_one_place_of_all_sizes_is_a_crop(tmp_path: Path, start: str) -> None:
    """As the networks of Long et al. cut off what their padding adds, at a number or in the middle."""
    body = (
        "like = F.relu(x)\n        x = F.pad(x, (3, 3, 3, 3))\n"
        f"        top = {start}\n        return x[:, :, top:top + like.shape[2], 3:like.size(3) + 3]"
    )
    crop = python(tmp_path, body, shape=(3, 15, 16)).layers[-1]
    assert (crop.type, crop.parameters, crop.inputs[1:]) == ("Crop", {"axis": 2, "offset": [3, 3]}, ("relu",))
    assert crop.shapes == ((3, 15, 16),)


@pytest.mark.parametrize(
    ("module", "type", "weights"),
    [
        ("nn.Conv2d(3, 6, (3, 5), 2, (1, 2), (2, 1), groups=3)", "Conv", {"weight": (6, 1, 3, 5), "bias": (6,)}),
        ("nn.Conv2d(3, 6, 4, padding='same', bias=False)", "Conv", {"weight": (6, 3, 4, 4)}),
        ("nn.Conv2d(3, 6, 3, padding=1, padding_mode='reflect')", "Conv2d", {"weight": (6, 3, 3, 3), "bias": (6,)}),
        ("nn.ConvTranspose2d(3, 6, 3, 2, 1, 1, groups=3)", "ConvTranspose", {"weight": (3, 2, 3, 3), "bias": (6,)}),
        ("nn.BatchNorm2d(3)", "BatchNormalization",
         {"weight": (3,), "bias": (3,), "running_mean": (3,), "running_var": (3,)}),
        ("nn.BatchNorm2d(3, affine=False)", "BatchNormalization", {"running_mean": (3,), "running_var": (3,)}),
        ("nn.BatchNorm2d(3, track_running_stats=False)", "BatchNormalization",
         {"weight": (3,), "bias": (3,)}),
        ("nn.PReLU(3)", "PRelu", {"weight": (3,)}),
        ("nn.Linear(16, 4)", "Linear", {"weight": (4, 16), "bias": (4,)}),  # over the last axis of an image: no Gemm
        ("nn.GroupNorm(3, 3)", "GroupNorm", {"weight": (3,), "bias": (3,)}),
        ("nn.MaxPool2d(3, 2, ceil_mode=True)", "MaxPool", {}),
        ("nn.AdaptiveAvgPool2d((1, 1))", "GlobalAveragePool", {}),
        ("nn.AdaptiveAvgPool2d(3)", "AdaptiveAvgPool2d", {}),
        ("nn.LocalResponseNorm(5)", "LRN", {}),
        ("nn.Hardtanh()", "Clip", {}),
        ("nn.Threshold(0.5, 0)", "ThresholdedRelu", {}),
        ("nn.Softmax(dim=1)", "Softmax", {}),
        ("nn.Flatten()", "Flatten", {}),
        ("nn.ReflectionPad2d(2)", "Pad", {}),
        ("nn.Upsample(scale_factor=2, mode='bilinear')", "Resize", {}),
        ("nn.Dropout2d()", "Dropout", {}),
        ("nn.SiLU()", "Swish", {}),
    ],
)  # fmt: skip
def test_a_module_is_a_layer_of_the_vocabulary(tmp_path: Path, module: str, type: str, weights: Any) -> None:
    topology = python(tmp_path, "return self.layer(x)", f"self.layer = {module}")
    assert said(topology) == [("layer", type)] and topology.layers[0].weights == weights


@pytest.mark.parametrize(
    ("forward", "type"),
    [
        ("return x * self.weight.reshape(1, -1, 1, 1)", "Scale"),
        ("return torch.addcmul(self.bias.view(1, 3, 1, 1), x, self.weight.view(1, 3, 1, 1))", "Scale"),
        # what the vocabulary has not is no layer of it, and keeps its weights
        ("return torch.addcmul(self.bias.view(1, 3, 1, 1), x, self.weight.view(1, 3, 1, 1), value=2)", "addcmul"),
        ("return torch.addcmul(self.weight.view(1, 3, 1, 1), x, self.bias.view(1, 3, 1, 1))", "addcmul"),
        ("return x * self.wide", "mul"),
        ("return x * self.wide.reshape(1, 1, 1, -1)", "mul"),
        ("return x + self.bias.reshape(1, -1, 1, 1)", "add"),
    ],
)
def test_arithmetic_with_weights_is_a_scale_of_the_channels_or_no_layer_of_the_vocabulary(
    tmp_path: Path, forward: str, type: str
) -> None:
    parts = {"weight": 3, "bias": 3, "wide": 16}
    made = "; ".join(f"self.{part} = nn.Parameter(torch.ones({size}))" for part, size in parts.items())
    topology = python(tmp_path, forward, made)
    (layer,) = topology.layers
    assert layer.type.removeprefix("torch.") == type
    assert layer.weights == {part: (size,) for part, size in parts.items() if f"self.{part}" in forward}


def test_layers_have_the_names_of_the_state_dict(tmp_path: Path) -> None:
    from multiseg_torch import files, weights

    layers = "self.a = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)); self.kernel = nn.Parameter(torch.ones(4, 4, 1, 1))"
    layers += "; self.b = nn.Linear(784, 5); self.scale = nn.Parameter(torch.ones(5))"
    forward = (
        "x = F.relu(self.a(x)); x = F.conv2d(x, self.kernel); x = F.relu(x).flatten(1); return self.b(x) * self.scale"
    )
    topology = python(tmp_path, forward, layers)
    model = files.load(str(tmp_path / "net.py"), (3, 16, 16)).model
    assert topology.weights == {name: tuple(value.shape) for name, value in weights.neutral_weights(model).items()}
    assert [name for name, _ in said(topology)] == ["a.0", "a.1", "relu", "model", "relu:2", "flatten", "b", "model"]


def test_a_module_used_twice_is_two_layers_with_one_set_of_weights(tmp_path: Path) -> None:
    layers = "self.conv = nn.Conv2d(3, 3, 3, padding=1); self.act = nn.Tanh()"
    topology = python(tmp_path, "return self.act(self.conv(self.act(self.conv(x))))", layers)
    assert said(topology) == [("conv", "Conv"), ("act", "Tanh"), ("conv", "Conv"), ("act:2", "Tanh")]
    assert topology.parameter_count == 3 * 3 * 9 + 3 and topology.layers[2].inputs == ("act",)


def test_the_files_own_python_decides(tmp_path: Path) -> None:
    forward = (
        "for _ in range(x.shape[2] // 8): x = F.relu(x) if x.shape[1] == 3 else x\n        a, b, c = x.chunk(3, 1)\n"
    )
    topology = python(tmp_path, f"{forward}        return torch.cat([c, a], 1)")
    assert [layer.type for layer in topology.layers] == ["Relu", "Relu", "Split", "Concat"]
    assert topology.layers[2].outputs == ("chunk.0", "chunk.1", "chunk.2")
    assert topology.layers[3].inputs == ("chunk.2", "chunk.0") and topology.shapes[topology.outputs[0]] == (2, 16, 16)


def test_writing_into_a_tensor_is_seen(tmp_path: Path) -> None:
    topology = python(tmp_path, "y = x * 2; y[:, 0] = 1; return y + x")
    assert [layer.type for layer in topology.layers] == ["Mul", "setitem", "Sum"]
    assert topology.layers[2].inputs == ("setitem", "input")


def test_torch7s_own_modules(tmp_path: Path) -> None:
    text = """local branches = nn.DepthConcat(2)
    branches:add(nn.SpatialConvolution(3, 4, 1, 1)):add(nn.SpatialConvolution(3, 4, 3, 3))
    local net = nn.Sequential():add(branches):add(nn.ConcatTable():add(nn.Tanh()):add(nn.Sigmoid())):add(nn.CAddTable())
    net:add(nn.SpatialUpSamplingBilinear(2)):add(nn.View(-1):setNumInputDims(3)):add(nn.Linear(8 * 31 * 31, 2))
    return {model = net, loss = nn.CrossEntropyCriterion(torch.Tensor{1, 2})}"""
    topology = describe(tmp_path / "net.lua", text)
    assert said(topology) == [
        ("0.0", "Conv"), ("0.1", "Conv"), ("0.pad", "Pad"), ("0.cat", "Concat"), ("1.0", "Tanh"), ("1.1", "Sigmoid"),
        ("2", "Sum"), ("3.interpolate", "Resize"), ("4.reshape", "Flatten"), ("5", "Gemm"),
    ]  # fmt: skip
    assert topology.loss == "cross-entropy of the softmax over class indices, mean, weighted by class"


def test_the_input_shape_must_be_given_and_the_output_depend_on_it(tmp_path: Path) -> None:
    from multiseg_torch import reader

    with pytest.raises(ModelError, match="does not say for which images it is"):
        reader.describe(str(tmp_path / "net.py"), None)
    for forward, words in (
        ("return torch.zeros(2, 3)", "returns no tensor that depends on its input"),
        ("return [2, 3]", "returns no tensor that depends on its input"),
    ):
        with pytest.raises(ModelError, match=words):
            python(tmp_path, forward)


def test_a_file_that_crops_is_described_for_what_the_network_sees(tmp_path: Path) -> None:
    text = """return function(params)
        assert(params.inputShape[2] == 32 and #params.inputShape == 3, 'Network expects 32x32 images')
        local size = 1
        params.inputShape:apply(function(n) size = size * n end)
        assert(size == 3 * 32 * 32)
        return {model = nn.Sequential():add(nn.View(-1):setNumInputDims(3)):add(nn.Linear(3 * 24 * 24, 2)), croplen = 24}
    end"""
    topology = describe(tmp_path / "net.lua", text, (3, 32, 32))
    assert topology.input_shape == (3, 24, 24) and said(topology) == [("0.reshape", "Flatten"), ("1", "Gemm")]


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (
            "nn.Conv2d(3, 4, 3, padding=1, padding_mode='reflect')",
            "has padding_mode='reflect'; a layer that pads before it",
        ),
        ("nn.utils.weight_norm(nn.Conv2d(3, 4, 3))", "computes its weight from weight_g and weight_v, as weight_norm"),
        (
            "nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))",
            "computes its weight from parametrizations.weight.original, as weight_norm",
        ),
        ("nn.GroupNorm(1, 3)", "is beyond the layers that can be written in another framework"),
    ],
)
def test_a_layer_beyond_the_vocabulary_is_refused_with_the_reason(tmp_path: Path, layer: str, reason: str) -> None:
    topology = python(tmp_path, "return self.a(x)", f"self.a = {layer}")
    again = Topology.of("net.py", "test", topology.to_json())
    for target in ("caffe", "torch"):
        with pytest.raises(ModelError) as caught:
            source(registry.get(target), again, classes=False)
        assert f"cannot express it exactly; layer 'a' ({topology.layers[0].type}): {reason}" in str(caught.value)


def test_the_reason_is_only_that_of_layers_beyond_the_vocabulary(tmp_path: Path) -> None:
    topology = python(tmp_path, "return self.a(x)", "self.a = nn.Conv2d(3, 4, 3, padding_mode='zeros')")
    assert (topology.layers[0].type, topology.layers[0].reason) == ("Conv", None)


def test_layers_that_share_weights_are_named(tmp_path: Path) -> None:
    conv = "nn.Conv2d(3, 3, 3, padding=1)"
    assert python(tmp_path, "return self.e(self.e(x))", f"self.e = {conv}").shared_weights == ["e"]
    tied = f"self.a, self.b, self.c = {conv}, {conv}, {conv}; self.b.weight = self.a.weight"
    assert python(tmp_path, "return self.c(self.b(self.a(x)))", tied).shared_weights == ["a", "b"]
    assert python(tmp_path, "return self.c(self.b(x))", tied).shared_weights == []
