"""Parity in bfloat16: PyTorch's autocast lies within the bounds that are derived for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import multiseg
from helpers.networks import layer, topology
from multiseg.cli import main
from multiseg.errors import SettingsError
from multiseg.exporting import files

pytestmark = pytest.mark.needs("torch")

WINDOW = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
NETWORKS = {
    "convolutions": [
        layer("conv", "Conv", "data", num_output=6, **WINDOW),
        layer("bn", "BatchNormalization", "conv", epsilon=1e-5),
        layer("relu", "Relu", "bn"),
        layer("pool", "MaxPool", "relu", kernel_shape=[2, 2], strides=[2, 2]),
        layer("norm", "LRN", "pool", size=3, alpha=0.1, beta=0.75, bias=1.0),
        layer("up", "ConvTranspose", "norm", num_output=3, kernel_shape=[2, 2], strides=[2, 2]),
    ],
    "functions": [
        layer("conv", "Conv", "data", num_output=6, group=3, kernel_shape=[3, 3], pads=[2, 2, 2, 2], dilations=[2, 2]),
        layer("tanh", "Tanh", "conv"),
        layer("swish", "Swish", "tanh", alpha=1.5),
        layer("average", "AveragePool", "swish", **WINDOW),
        layer("both", "Concat", "average", "tanh", axis=1),
        layer("up", "ConvTranspose", "both", num_output=3, kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1]),
        layer("down", "Resize", "up", scales=[0.5, 0.5], mode="linear", coordinates="half_pixel"),
        layer("soft", "Softmax", "down", axis=1),
        layer("sum", "Sum", "soft", "down", "data", coefficients=[1.0, 2.0, 0.5]),
    ],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_autocast_computes_is_within_the_bounds(name: str, coloured: multiseg.Dataset, tmp_path: Path) -> None:
    file = files.export(topology(NETWORKS[name], shape=(3, 8, 8)), "torch", tmp_path / "net.py")
    found = multiseg.check_parity(coloured, ["torch"], file, steps=2, threads=1, batch_size=4, precision="bf16")
    assert found.ok and found.complete, found.first_divergence
    assert found.sides == ["PyTorch (net.py), bf16"]
    assert {row.stage for row in found.rows} == {"forward", "output", "loss", "gradient", "step"}
    by_name = {row.name: row for row in found.rows if row.stage == "forward"}
    # the convolution rounds to 8 bits: between a hundredth of an eighth bit and the eighth bit, of the largest value
    assert 2**-15 < by_name["conv"].relative < 2**-7
    # an error of a tenth of the largest value would be found in every layer, and of a hundredth in a convolution
    assert all(row.resolution < 0.15 for row in by_name.values())
    assert by_name["conv"].resolution < 0.015


def test_what_is_for_float32_is_refused(coloured: multiseg.Dataset, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"precision='bf16' and save=.*: specify one"):
        multiseg.check_parity(coloured, ["torch"], precision="bf16", save=tmp_path / "golden.safetensors")
    with pytest.raises(SettingsError, match="backend caffe trains in float32"):
        multiseg.check_parity(coloured, ["caffe"], precision="bf16")
    command = ["parity", "--dataset", str(coloured.path), "--backend", "torch", "--precision", "half"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code != 0 and "half" in result.output
