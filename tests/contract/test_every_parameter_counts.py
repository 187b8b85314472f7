"""Networks that differ in one parameter of any layer, also beyond the vocabulary, and constants that a file creates itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers.exported import Frameworks
from multiseg.errors import ModelError
from multiseg.exporting import files
from multiseg.topology import Topology


@pytest.fixture(scope="module")
def frameworks() -> Iterator[Frameworks]:
    workers = Frameworks()
    yield workers
    workers.close()


TORCH = """
import torch
from torch import nn
from torch.nn import functional as F
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = {}
        self.scale = nn.Parameter(torch.full((4, 1, 1), 2.0))
        self.kernel = torch.linspace(-1, 1, 9).view(1, 1, 3, 3).repeat(4, 1, 1, 1)
    def forward(self, x):
        x = self.layer(x)
        return {}
def network(params):
    return Net()
"""
TENSORFLOW = """
class UserModel(Tower):
    @model_property
    def inference(self):
        x = self.x
        return {}
    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""
PROTOTXT = """
input: "data" input_shape {{ dim: 1 dim: 4 dim: 8 dim: 8 }}
layer {{ name: "layer" bottom: "data" top: "layer" {} }}
"""
IDENTITY = "nn.Identity()"
PAIRS = {
    "group norm": (("nn.GroupNorm(1, 4)", "x"), ("nn.GroupNorm(2, 4)", "x")),
    "group norm epsilon": (("nn.GroupNorm(2, 4, eps=1e-3)", "x"), ("nn.GroupNorm(2, 4)", "x")),
    "padding mode": (
        ("nn.Conv2d(4, 4, 3, padding=1, padding_mode='circular')", "x"),
        ("nn.Conv2d(4, 4, 3, padding=1, padding_mode='reflect')", "x"),
    ),
    "roll": ((IDENTITY, "torch.roll(x, 1, 2)"), (IDENTITY, "torch.roll(x, 2, 2)")),
    "roll axis": ((IDENTITY, "torch.roll(x, 1, 2)"), (IDENTITY, "torch.roll(x, 1, 3)")),
    "slices": ((IDENTITY, "x[:, :, ::2, ::2]"), (IDENTITY, "x[:, :, 1::2, ::2]")),
    "index": ((IDENTITY, "x[:, [0, 1]]"), (IDENTITY, "x[:, [0, 2]]")),
    "cast": ((IDENTITY, "x.to(torch.int32).float()"), (IDENTITY, "x.to(torch.float16).float()")),
    "interpolation": (
        (IDENTITY, "F.interpolate(x, scale_factor=2, mode='bicubic', align_corners=False)"),
        (IDENTITY, "F.interpolate(x, scale_factor=2, mode='bicubic', align_corners=True)"),
    ),
    "constant": ((IDENTITY, "x * torch.tensor([1., 2., 3., 4.]).view(4, 1, 1)"),
                 (IDENTITY, "x * torch.tensor([1., 2., 3., 5.]).view(4, 1, 1)")),
    "kernel": ((IDENTITY, "F.conv2d(x, self.kernel, groups=4)"), (IDENTITY, "F.conv2d(x, 2 * self.kernel, groups=4)")),
    "of weights": ((IDENTITY, "x * (2 * self.scale)"), (IDENTITY, "x * (3 * self.scale)")),
    "pixel shuffle": (("nn.PixelShuffle(2)", "x.repeat(1, 2, 1, 1)"), ("nn.PixelShuffle(2)", "x.repeat(1, 1, 2, 1)")),
}  # fmt: skip


@pytest.mark.needs("torch")
@pytest.mark.parametrize("case", PAIRS)
def test_pytorch_networks_that_differ_in_one_parameter(case: str, frameworks: Frameworks, tmp_path: Path) -> None:
    described = []
    for number, parts in enumerate(PAIRS[case]):
        path = tmp_path / f"net{number}.py"
        path.write_text(TORCH.format(*parts))
        described.append(frameworks.describe(path, (4, 8, 8)))
        assert not described[-1].diff(frameworks.describe(path, (4, 8, 8)))
    assert described[0].diff(described[1])


GRAPHS = {
    "cast": ("tf.cast(tf.cast(x, tf.int32), tf.float32)", "tf.cast(tf.cast(x, tf.uint8), tf.float32)"),
    "roll": ("tf.roll(x, 1, 2)", "tf.roll(x, 2, 2)"),
    "depth to space": ("tf.nn.space_to_depth(x, 2)", "tf.nn.space_to_depth(x, 4)"),
    "gather": ("tf.gather(x, list(range(4)) * 20, axis=3)", "tf.gather(x, list(range(3, -1, -1)) * 20, axis=3)"),
    "resizing": (
        "tf.image.resize_bicubic(x, [16, 16], align_corners=True)", "tf.image.resize_bicubic(x, [16, 16], align_corners=False)"
    ),
    "attribute": ("tf.nn.selu(tf.cumsum(x, 1, exclusive=True))", "tf.nn.selu(tf.cumsum(x, 1, exclusive=False))"),
}  # fmt: skip


@pytest.mark.needs("tensorflow")
@pytest.mark.parametrize("case", GRAPHS)
def test_tensorflow_networks_that_differ_in_one_parameter(case: str, frameworks: Frameworks, tmp_path: Path) -> None:
    described: list[Topology] = []
    for number, text in enumerate(GRAPHS[case]):
        path = tmp_path / f"net{number}.py"
        path.write_text(TENSORFLOW.format(text))
        described.append(frameworks.describe(path, (4, 8, 8)))
        assert not described[-1].diff(frameworks.describe(path, (4, 8, 8)))
    assert described[0].diff(described[1])


LAYERS = {
    "mvn": ('type: "MVN" mvn_param { across_channels: true }', 'type: "MVN"'),
    "mvn variance": ('type: "MVN" mvn_param { normalize_variance: false }', 'type: "MVN"'),
    "tile": ('type: "Tile" tile_param { axis: 1 tiles: 2 }', 'type: "Tile" tile_param { axis: 2 tiles: 2 }'),
}


@pytest.mark.needs("caffe")
@pytest.mark.parametrize("case", LAYERS)
def test_caffe_networks_that_differ_in_one_parameter(case: str, frameworks: Frameworks, tmp_path: Path) -> None:
    described = []
    for number, text in enumerate(LAYERS[case]):
        path = tmp_path / f"net{number}.prototxt"
        path.write_text(PROTOTXT.format(text))
        described.append(frameworks.describe(path, (4, 8, 8)))
    assert described[0].diff(described[1])


@pytest.mark.needs("caffe")
def test_a_default_that_a_prototxt_writes_is_no_difference(frameworks: Frameworks, tmp_path: Path) -> None:
    texts = ('type: "MVN" mvn_param { normalize_variance: true eps: 1e-9 }', 'type: "MVN"')
    for number, text in enumerate(texts):
        (tmp_path / f"net{number}.prototxt").write_text(PROTOTXT.format(text))
    one, other = (frameworks.describe(tmp_path / f"net{number}.prototxt", (4, 8, 8)) for number in range(2))
    assert not one.diff(other)


# expressions of x, and the value for x = -1 ... 1; None: refused by name
CONSTANTS = {
    "x * torch.tensor(3.)": lambda x: 3 * x,
    "torch.tensor([3.]) * x": lambda x: 3 * x,
    "x + torch.full((1, 4, 1, 1), 2.)": lambda x: x + 2,
    "torch.ones(4, 8, 8) + x": lambda x: x + 1,
    "x - x.new_tensor(1.5)": lambda x: x - 1.5,
    "x / torch.full_like(x, 4.)": lambda x: x / 4,
    "x + 2 * torch.ones_like(x)": lambda x: x + 2,
    "x * torch.linspace(1, 4, 4).view(4, 1, 1)": None,
    "x + torch.arange(8.)": None,
    "torch.cat([x, torch.zeros(2, 4, 8, 8)], 1)": lambda x: np.concatenate([x, np.zeros((2, 4, 8, 8))], 1),
    "torch.maximum(x, torch.zeros(1))": None,
    "torch.tensor(1.) - x": None,
    "x * torch.exp(self.scale)": None,
    "F.conv2d(x, self.kernel, groups=4)": None,
    "F.dropout(x, 0.5)": None,
}


@pytest.mark.needs("torch", "tensorflow", "caffe")
@pytest.mark.parametrize("text", CONSTANTS)
def test_constants_of_a_pytorch_file_are_exported_or_refused(text: str, frameworks: Frameworks, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(TORCH.format(IDENTITY, text))
    topology = frameworks.describe(path, (4, 8, 8))
    expected = CONSTANTS[text]
    x = np.random.default_rng(4).uniform(-1, 1, (2, 4, 8, 8)).astype(np.float32)
    for backend, suffix in (("caffe", "prototxt"), ("tensorflow", "py")):
        out = tmp_path / f"net_{backend}.{suffix}"
        if expected is None:
            name = topology.layers[-1].name
            with pytest.raises(ModelError, match=f"layer '{name}'"):
                files.export(topology, backend, out)
        else:
            files.export(topology, backend, out)
            output = frameworks.predict(backend, out, topology, {}, x)
            np.testing.assert_allclose(output, expected(x.astype(np.float64)), rtol=1e-6, atol=1e-6)


@pytest.mark.needs("torch")
@pytest.mark.parametrize(
    ("text", "alpha"),
    [
        ("x * torch.sigmoid(1.702 * x)", 1.702), ("torch.sigmoid(x) * x", 1.0), ("(x * 2).sigmoid() * x", 2.0),
        ("x * torch.sigmoid(x * torch.tensor(0.5))", 0.5), ("x * torch.sigmoid(x + 1)", None),
        ("torch.sigmoid(2 * x)", None),
    ],
)  # fmt: skip
def test_pytorchs_swish_as_arithmetic(text: str, alpha: float | None, frameworks: Frameworks, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(TORCH.format(IDENTITY, text))
    layers = frameworks.describe(path, (4, 8, 8)).layers
    swish = [layer.parameters["alpha"] for layer in layers if layer.type == "Swish"]
    assert swish == ([] if alpha is None else [pytest.approx(alpha)])
    assert alpha is None or {layer.type for layer in layers} == {"Identity", "Swish"}
