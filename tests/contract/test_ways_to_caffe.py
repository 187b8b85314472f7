"""Layers that Caffe has no layer for move there as several layers: outputs, gradients and steps agree with float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multiseg import Dataset, check_parity, convert

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")

NETWORK = """
import torch
from torch import nn
from torch.nn import functional as F

class Gate(nn.Module):
    def __init__(self, channels, expands, comes_first):
        super().__init__()
        self.a, self.b = nn.Linear(channels, 2), nn.Linear(2, channels)
        self.expands, self.comes_first = expands, comes_first

    def forward(self, x):
        s = torch.sigmoid(self.b(F.elu(self.a(x.mean((2, 3)))))).view(x.size(0), -1, 1, 1)
        s = s.expand_as(x) if self.expands else s
        return s * x if self.comes_first else x * s

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.gates = nn.Sequential(Gate(4, True, False), Gate(4, False, False), Gate(4, False, True))
        self.threshold = nn.Threshold(0, 1e-6)
        self.down = nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.dropout = nn.Dropout2d(0.2)
        self.up = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1)
        self.nearest = nn.Upsample(scale_factor=(2, 2))
        self.last = nn.Conv2d(4, 3, 1)

    def forward(self, x):
        y = self.threshold(self.gates(self.conv(x)))
        y = self.dropout(self.up(self.down(y), output_size=y.size()))
        return self.last(F.pad(self.nearest(y), [0, 0, 0, 0]))
"""
LUA = """
local net = nn.Sequential():add(nn.SpatialConvolution(1, 3, 3, 3, 1, 1, 1, 1)):add(nn.SpatialLogSoftMax())
return { model = net, loss = nn.SpatialClassNLLCriterion() }
"""


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder, draw = tmp_path_factory.mktemp("masks"), np.random.default_rng(1)
    for name, most in (("input", 256), ("target", 3)):
        (folder / name).mkdir()
        for number in range(6):
            Image.fromarray(draw.integers(0, most, (8, 8), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=30, seed=1, labels="classes",
        classes=["a", "b", "c"],
    )  # fmt: skip


def test_gates_thresholds_channel_dropout_and_nearest_upsampling_train_alike(coloured: Dataset, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    parity = check_parity(coloured, None, f"{tmp_path / 'net.py'}:Net()", steps=2, batch_size=2, loss="l2", threads=1)
    assert [row for row in parity.rows if not row.ok] == [] and parity.complete
    assert {row.side.partition(" ")[0] for row in parity.rows} == {"Caffe", "PyTorch", "TensorFlow"}


def test_a_final_log_softmax_is_the_softmax_loss_of_caffe(masks: Dataset, tmp_path: Path) -> None:
    (tmp_path / "net.lua").write_text(LUA)
    # pixels of 0 to 255: probabilities are 0 in float32, and their logarithms are finite
    parity = check_parity(masks, ["torch", "caffe"], tmp_path / "net.lua", steps=2, batch_size=2, threads=1)
    assert [row for row in parity.rows if not row.ok] == [] and parity.complete


def test_weights_move_to_the_exported_file(tmp_path: Path) -> None:
    import torch

    (tmp_path / "net.py").write_text(NETWORK)
    draw = torch.Generator().manual_seed(1)
    sizes = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "down.weight": (4, 4, 3, 3), "down.bias": (4,),
             "up.weight": (4, 4, 3, 3), "up.bias": (4,), "last.weight": (3, 4, 1, 1), "last.bias": (3,)}  # fmt: skip
    for gate in range(3):
        sizes |= {f"gates.{gate}.a.weight": (2, 4), f"gates.{gate}.a.bias": (2,),
                  f"gates.{gate}.b.weight": (4, 2), f"gates.{gate}.b.bias": (4,)}  # fmt: skip
    state = {name: torch.rand(size, generator=draw) for name, size in sizes.items()}
    torch.save(state, tmp_path / "net.pt")
    moved = convert(
        tmp_path / "net.pt", "caffemodel", tmp_path / "net.caffemodel", source_network=f"{tmp_path / 'net.py'}:Net",
        with_network=tmp_path / "net.prototxt", input_shape=(3, 8, 8), label_shape=(3, 8, 8),
    )  # fmt: skip
    assert set(moved.matched.values()) == set(state)
    back = convert(
        tmp_path / "net.caffemodel", "pt", tmp_path / "back.pt", network=f"{tmp_path / 'net.py'}:Net",
        input_shape=(3, 8, 8), label_shape=(3, 8, 8),
    )  # fmt: skip
    values = torch.load(back.path, weights_only=True)
    assert all(torch.equal(values[name], value) for name, value in state.items())
