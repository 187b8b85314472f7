"""A bilinear upsampling that a prototxt does not train stays bilinear and untrained in every backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multiseg

NETWORK = """
layer { name: "data" type: "Data" top: "data" exclude { stage: "deploy" } data_param { batch_size: 2 } }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } data_param { batch_size: 2 } }
layer { name: "data" type: "Input" top: "data" include { stage: "deploy" } input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 3 kernel_size: 2 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "up" type: "Deconvolution" bottom: "conv" top: "up" param { lr_mult: 0 }
        convolution_param { num_output: 3 group: 3 kernel_size: SIZE stride: 2 pad: PAD bias_term: false
                            weight_filler { type: "bilinear" } } }
layer { name: "crop" type: "Crop" bottom: "up" bottom: "data" top: "crop" crop_param { axis: 2 offset: 0 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "crop" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""
# 1 - |x / f - c| with f = ceil(k / 2), c = (k - 1) / (2 f)
LINES = {4: (1, 0.25, 0.75, 0.75, 0.25), 3: (0, 0.5, 1, 0.5)}


@pytest.mark.parametrize(("size", "recipe"), [(3, "tutorial"), (4, "tutorial"), (4, "equal")])
def test_it_is_exported_as_fixed_and_bilinear(backend: str, size: int, recipe: str, tmp_path: Path) -> None:
    pad, *line = LINES[size]
    draw = np.random.default_rng(0)
    for name, most in (("input", 256), ("target", 3)):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(draw.integers(0, most, (8, 8), dtype=np.uint8)).save(tmp_path / name / f"{number}.png")
    dataset = multiseg.Dataset.create(
        tmp_path / "dataset", input=tmp_path / "input", target=tmp_path / "target", val_percent=25, seed=1,
        labels="classes", classes=["a", "b", "c"], ignore=None,
    )  # fmt: skip
    (tmp_path / "net.prototxt").write_text(NETWORK.replace("SIZE", str(size)).replace("PAD", str(pad)))
    job = multiseg.Job(
        dataset=dataset, backend=backend, model=tmp_path / "net.prototxt", epochs=1, batch_size=2, learning_rate=0.01, seed=1,
        threads=1, metric="val_loss", solver_options={"weight_decay": 0.1}, recipe=recipe,
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        weights = run.worker().call("get_weights")
        name = next(name for name in weights if name.startswith("up"))
        assert weights[name].shape == (3, 1, size, size)
        assert np.array_equal(weights[name], np.broadcast_to(np.outer(line, line), (3, 1, size, size)))


def test_the_description_says_so(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NETWORK.replace("SIZE", "4").replace("PAD", "1"))
    topology = multiseg.describe(tmp_path / "net.prototxt")
    fixed = {layer.name: (layer.frozen, layer.initial) for layer in topology.layers}
    assert (fixed["up"], fixed["conv"]) == ((True, "bilinear"), (False, None))
    described = next(layer for layer in topology.to_json()["layers"] if layer["name"] == "up")
    assert (described["frozen"], described["initial"]) == (True, "bilinear")


FIXED = """
layer { name: "data" type: "Data" top: "data" exclude { stage: "deploy" } data_param { batch_size: 2 } }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } data_param { batch_size: 2 } }
layer { name: "data" type: "Input" top: "data" include { stage: "deploy" } input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } }
layer { name: "scale" type: "Scale" bottom: "data" top: "scale" param { lr_mult: 0 } param { lr_mult: 0 }
        scale_param { bias_term: true } }
layer { name: "slope" type: "PReLU" bottom: "scale" top: "slope" param { lr_mult: 0 } }
layer { name: "conv" type: "Convolution" bottom: "slope" top: "conv"
        convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "dense" type: "InnerProduct" bottom: "conv" top: "dense" param { lr_mult: 0 } param { lr_mult: 0 }
        inner_product_param { num_output: 64 weight_filler { type: "xavier" } } }
layer { name: "image" type: "Reshape" bottom: "dense" top: "image"
        reshape_param { shape { dim: 0 dim: 1 dim: 8 dim: 8 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "image" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""


@pytest.mark.parametrize("weight_decay", [0.1, 0.0])  # without it, only a gradient changes the convolution
def test_layers_of_every_kind_stay_untrained(backend: str, tmp_path: Path, weight_decay: float) -> None:
    draw = np.random.default_rng(0)
    for name in ("input", "target"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / name / f"{number}.png")
    dataset = multiseg.Dataset.create(
        tmp_path / "dataset", input=tmp_path / "input", target=tmp_path / "target", val_percent=25, seed=1
    )
    (tmp_path / "net.prototxt").write_text(FIXED)
    job = multiseg.Job(
        dataset=dataset, backend=backend, model=tmp_path / "net.prototxt", epochs=1, batch_size=2, learning_rate=1e-4, seed=1,
        threads=1, solver_options={"weight_decay": weight_decay}, subtract_mean="none", divide_std=[200.0], loss="l2",
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        trained = run.worker().call("get_weights")
        loaded = replace(job, epochs=1, learning_rate=1e-30).train(tmp_path / "start", progress=False)
        with loaded:
            start = loaded.worker().call("get_weights")
        changed = {name for name in trained if not np.array_equal(trained[name], start[name])}
    assert {name.partition(".")[0] for name in changed} == {"conv"}
