"""Networks in the manner of public files for Caffe's forks: they train alike and move between Caffe, PyTorch and TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers import fork_nets, zoo
from helpers.class_masks import class_masks
from helpers.exported import random_weights
from helpers.nightly import nightly
from multiseg import backend as registry
from multiseg.errors import ModelError
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


DEEPLAB = """
layer { name: "data" type: "ImageSegData" top: "data" top: "label" include { phase: TRAIN } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "shrink" type: "Interp" bottom: "label" top: "small" interp_param { shrink_factor: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "small" loss_param { ignore_label: 255 } }
"""


def test_a_file_that_shrinks_its_labels_is_an_error_that_says_how_to_train_it(backend: str, tmp_path: Path) -> None:
    data = class_masks(tmp_path / "data")  # 8x8, of which crops of 7x7 become 4x4
    file = tmp_path / "deeplab.prototxt"
    file.write_text(DEEPLAB)
    settings: dict[str, Any] = {"epochs": 1, "crop": 7, "val_crop": "centre", "batch_size": 2}
    with pytest.raises(ModelError) as caught:
        multiseg.Job(data, backend, model=file, **settings).train(tmp_path / "refused", progress=False)
    message = str(caught.value)
    assert "the labels are (1, 7, 7); deeplab.prototxt: layer 'shrink' (Interp) shrinks the labels" in message
    layer = message[message.index("layer { name") : message.index(" (for images of 2 n + 1 pixels")]
    assert "let losses and metrics compare 'conv_interp' with 'label'" in message
    loss = DEEPLAB.splitlines()[-1].replace('"conv"', '"conv_interp"').replace('"small"', '"label"')
    file.write_text("\n".join([*DEEPLAB.splitlines()[:-2], layer, loss]))
    run = multiseg.Job(data, backend, model=file, **settings).train(tmp_path / "run", progress=False)
    assert run.history[-1]["miou"] is not None


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
