"""Files of DIGITS that leave the number of classes open train with as many outputs as the dataset has classes, and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multiseg import Dataset, Job
from multiseg.errors import ModelError, TrainingStopped
from multiseg.training.signals import Stop

PROTOTXT = """
layer { name: "d" type: "Data" top: "data" top: "label" include { stage: "train" } }
layer { name: "d" type: "Data" top: "data" top: "label" include { stage: "val" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "score" type: "Convolution" bottom: "conv" top: "score" convolution_param { kernel_size: 1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""
LUA = """
return function(params)
   local net = nn.Sequential():add(nn.SpatialConvolution(1, 2, 1, 1))
   return { model = net:add(nn.SpatialConvolution(2, params.nclasses, 1, 1)), loss = nn.SpatialCrossEntropyCriterion() }
end
"""
TENSORFLOW = """
class UserModel(Tower):
    @model_property
    def inference(self):
        hidden = slim.conv2d(self.x, 2, 1, scope='conv')
        return slim.conv2d(hidden, self.nclasses, 1, activation_fn=None, scope='score')

    @model_property
    def loss(self):
        return digits.classification_loss(self.inference, self.y)
"""
FILES = {"caffe": ("net.prototxt", PROTOTXT), "torch": ("net.lua", LUA), "tensorflow": ("net.py", TENSORFLOW)}


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Images with masks of three classes, of which the last one occurs in no mask."""
    folder, draw = tmp_path_factory.mktemp("masks"), np.random.default_rng(1)
    for name, most in (("input", 256), ("target", 2)):
        (folder / name).mkdir()
        for number in range(4):
            Image.fromarray(draw.integers(0, most, (8, 8), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=50, seed=1, labels="classes",
        classes=["ground", "road", "sky"],
    )  # fmt: skip


def test_a_file_takes_the_number_of_classes_of_the_dataset(backend: str, masks: Dataset, tmp_path: Path) -> None:
    name, text = FILES[backend]
    model = tmp_path / name
    model.write_text(text)
    settings: dict[str, Any] = {
        "dataset": masks, "backend": backend, "epochs": 2, "batch_size": 2, "val_batch_size": 2, "seed": 1, "threads": 1,
        "learning_rate": 1e-6,
    }  # fmt: skip
    stop = Stop()

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            stop.ask()

    with pytest.raises(TrainingStopped):
        Job(**settings, model=model).train(tmp_path / "run", progress=interrupt, stop=stop)
    model.unlink()
    with Job(**settings, model=model).train(tmp_path / "run", resume=True, progress=False) as run:
        assert run.summary["status"] == "finished" and run.classes == 3
        sizes = [value.shape for value in run.worker().call("get_weights").values() if value.ndim == 4]
        assert sizes == [(2, 1, 1, 1), (3, 2, 1, 1)]
        assert run.topology.source == name


def test_without_the_number_an_error_says_how_to_specify_it(
    backend: str, dataset: Dataset, load: Any, tmp_path: Path
) -> None:
    name, text = FILES[backend]
    (tmp_path / name).write_text(text)
    with pytest.raises(ModelError, match=rf"{name}.*open.*specify classes=N"):  # labels are images
        load(model=tmp_path / name)
    assert load(model=tmp_path / name, classes=1, loss="l1").described["parameters"]
