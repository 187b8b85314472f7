"""Networks in the manner of public files for Caffe's forks: they train alike and move between Caffe, PyTorch and TensorFlow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import multiseg
from helpers import fork_nets, zoo
from helpers.exported import random_weights
from helpers.nightly import nightly
from multiseg import backend as registry
from multiseg.model_files.reading import read_weights
from multiseg.model_files.writing import write_weights

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")
FORKS = {"MaxUnpool": "Upsample", "Resize": "Interp"}


@pytest.mark.parametrize("net", nightly(fork_nets.SHAPES, ["segnet", "icnet", "enet"]))
def test_steps_agree_in_all_frameworks(net: str, tmp_path: Path) -> None:
    shape = fork_nets.SHAPES[net]
    file = fork_nets.write(net, tmp_path)
    described = multiseg.describe(file, shape)
    files = [file, *(multiseg.export(file, to, tmp_path / f"{net}_{to}.py", shape) for to in ("torch", "tensorflow"))]
    assert all(multiseg.describe(other, shape) == described for other in files[1:])
    data = zoo.random_dataset(tmp_path / "dataset", shape, (1, *shape[1:]), fork_nets.CLASSES)
    found = multiseg.check_parity(
        data, models=files, steps=5, batch_size=2, threads=1, learning_rate=0.01, subtract_mean="none"
    )
    assert found.ok, str(found)
    for side in found.sides:
        rows = [row for row in found.rows if row.side == side]
        trained = {name for name in described.weights if "running" not in name}
        assert {row.name for row in rows if row.stage == "gradient"} == trained
        assert max(row.step for row in rows if row.stage == "step") == 5
        assert {row.name for row in rows if row.stage == "forward"} == set(described.shapes) - {described.input}


@pytest.mark.parametrize("net", nightly(fork_nets.SHAPES, ["segnet", "pspnet"]))
def test_weights_move_through_all_frameworks_and_back_to_the_bit(net: str, tmp_path: Path) -> None:
    shape = fork_nets.SHAPES[net]
    file = fork_nets.write(net, tmp_path)
    weights = random_weights(multiseg.describe(file, shape))
    first, back = tmp_path / "first.caffemodel", tmp_path / "back.caffemodel"
    write_weights(registry.get("caffe"), first, weights, file, shape)
    torch, tensorflow = tmp_path / "net_torch.py", tmp_path / "net_tensorflow.py"
    pt, tf = tmp_path / "w.pt", tmp_path / "w.ckpt"
    multiseg.convert(first, "pt", pt, source_network=file, with_network=torch, input_shape=shape)
    multiseg.convert(pt, "tf", tf, source_network=torch, with_network=tensorflow, input_shape=shape)
    multiseg.convert(tf, "caffemodel", back, network=file, source_network=tensorflow, input_shape=shape)
    found = read_weights(back)
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[name], value) for name, value in weights.items())


@pytest.mark.parametrize("net", ["segnet", "icnet"])
def test_layers_of_forks_are_the_same_on_the_way_back_to_caffe(net: str, tmp_path: Path) -> None:
    shape = fork_nets.SHAPES[net]
    file = fork_nets.write(net, tmp_path)
    torch = multiseg.export(file, "torch", tmp_path / "net.py", shape)
    back = multiseg.export(torch, "caffe", tmp_path / "back.prototxt", shape)
    described = multiseg.describe(file, shape)
    assert multiseg.describe(back, shape) == described
    text = back.read_text()
    for kind, own in FORKS.items():
        assert text.count(f'type: "{own}"') == sum(layer.type == kind for layer in described.layers)
