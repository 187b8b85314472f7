"""A last batch of one image, over which batch normalization of one value per channel has no statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg import Job
from multiseg.errors import RunError, SettingsError

FILES = {
    "caffe": (
        "net.prototxt",
        """
layer { name: "d" type: "Data" top: "data" include { phase: TRAIN } }
layer { name: "l" type: "Data" top: "label" include { phase: TRAIN } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 2 kernel_size: 8 stride: 8 weight_filler { type: "xavier" } } }
layer { name: "pooled" type: "BatchNorm" bottom: "conv" top: "normal" }
layer { name: "up" type: "Deconvolution" bottom: "normal" top: "up"
        convolution_param { num_output: 1 kernel_size: 8 stride: 8 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "up" bottom: "label" top: "loss" exclude { stage: "deploy" } }
""",
    ),
    "torch": (
        "net.py",
        """
from torch import nn

def network(params):
    layers = {"conv": nn.Conv2d(1, 2, 8, 8), "pooled": nn.BatchNorm2d(2), "up": nn.ConvTranspose2d(2, 1, 8, 8)}
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return {"model": model, "loss": nn.MSELoss()}
""",
    ),
    "tensorflow": (
        "net.py",
        """
class UserModel(Tower):
    @model_property
    def inference(self):
        y = slim.conv2d(self.x, 2, 8, 8, "VALID", scope="conv")
        y = slim.batch_norm(y, is_training=self.is_training, scope="pooled")
        return slim.conv2d_transpose(y, 1, 8, 8, "VALID", activation_fn=None, scope="up")

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
""",
    ),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    folder, draw = tmp_path_factory.mktemp("nine"), np.random.default_rng(0)
    for name in ("input", "target"):
        (folder / name).mkdir()
        for number in range(9):
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return multiseg.Dataset.create(
        folder / "db", input=folder / "input", target=folder / "target", val_percent=0, seed=0
    )


def test_it_is_refused_before_training(backend: str, dataset: multiseg.Dataset, tmp_path: Path) -> None:
    name, text = FILES[backend]
    (tmp_path / name).write_text(text)
    options = {"dataset": dataset, "backend": backend, "model": tmp_path / name, "epochs": 1, "seed": 1, "threads": 1}
    for size in (1, 2, 4, 8):
        job = Job(**options, batch_size=size, learning_rate=1e-8)  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match=f"batch_size={size}: of 9 training images") as caught:
            job.train(tmp_path / "run", progress=False)
        assert "pooled" in str(caught.value) and "choose e.g. batch_size=" in str(caught.value)
        assert not (tmp_path / "run").exists()
    for size in (3, 5, 9):
        Job(**options, batch_size=size, learning_rate=1e-8).train(tmp_path / f"{size}", progress=False)  # type: ignore[arg-type]


def test_several_values_per_channel_need_no_second_image(
    backend: str, dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    name, text = FILES[backend]
    for old, new in (("kernel_size: 8 stride: 8", "kernel_size: 4 stride: 4"), ("8, 8", "4, 4")):
        text = text.replace(old, new)
    (tmp_path / name).write_text(text)
    job = Job(
        dataset=dataset, backend=backend, model=tmp_path / name, epochs=1, batch_size=4, learning_rate=1e-8, threads=1
    )
    assert job.train(tmp_path / "run", progress=False).history[-1]["train_loss"] is not None


def test_a_run_that_broke_off_before_its_first_snapshot_may_have_another_batch_size(
    backend: str, dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    name, text = FILES[backend]
    (tmp_path / name).write_text(text)

    def job(size: int) -> Job:
        return Job(
            dataset=dataset,
            backend=backend,
            model=tmp_path / name,
            epochs=2,
            batch_size=size,
            learning_rate=1e-8,
            seed=1,
            threads=1,
        )

    def breaking(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            raise RuntimeError("broke off")

    with pytest.raises(RuntimeError, match="broke off"):
        job(3).train(tmp_path / "run", progress=breaking)
    assert json.loads((tmp_path / "run" / "job.json").read_text())["settings"]["batch_size"] == 3
    run = job(5).train(tmp_path / "run", resume=True, progress=False)
    fresh = job(5).train(tmp_path / "fresh", progress=False)
    assert run.settings["batch_size"] == 5 and run.history[-1]["iteration"] == 4
    assert [row["train_loss"] for row in run.history] == [row["train_loss"] for row in fresh.history]
    with pytest.raises(RunError, match="batch_size=5, not 3"):
        job(3).train(tmp_path / "run", resume=True, progress=False)
