"""Writes old_runs.tar.gz: a dataset and runs in the format that releases before the packages wrote, and their numbers.

Run with the code at commit dd5a2a1 (multiseg 0.1, flat modules) on PYTHONPATH, once:

    python make_old_runs.py FOLDER && tar czf old_runs.tar.gz -C FOLDER dataset images runs expected.json

The network is one 1x1 convolution with bias on 4x4 images of pixels 0 and 1; rate and momentum are powers of two, so in four
steps of SGD every sum is exact in float32 in any order, and any machine computes the same bits. The run with Adam and noise is
compared within rounding instead; it has the state of the augmentation and of a solver with two slots.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import multiseg

CAFFE = """
layer { name: "data" type: "Data" top: "data" data_param { batch_size: 4 } }
layer { name: "label" type: "Data" top: "label" data_param { batch_size: 4 } exclude { stage: "deploy" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 1 kernel_size: 1
        weight_filler { type: "constant" value: 2 } bias_filler { type: "constant" value: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "conv" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""
TORCH = """
from torch import nn

class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        nn.init.constant_(self.conv.weight, 2)
        nn.init.constant_(self.conv.bias, 1)

    def forward(self, x):
        return self.conv(x)

def network(params):
    return {"model": Linear(), "loss": nn.MSELoss()}
"""
TENSORFLOW = """
from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits

class UserModel(Tower):
    @model_property
    def inference(self):
        return slim.conv2d(self.x, 1, [1, 1], activation_fn=None, scope='conv',
                           weights_initializer=tf.constant_initializer(2.0),
                           biases_initializer=tf.constant_initializer(1.0))

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""
FILES = {"caffe": ("linear.prototxt", CAFFE), "torch": ("linear.py", TORCH), "tensorflow": ("linear.py", TENSORFLOW)}


class Interrupted(Exception):
    pass


def interrupt(event: dict[str, Any]) -> None:
    if event["event"] == "snapshot":
        raise Interrupted


def weights_of(run: multiseg.Run) -> dict[str, list[float]]:
    return {name: value.ravel().tolist() for name, value in run.worker().call("get_weights").items()}


def main(folder: Path) -> None:
    draw = np.random.default_rng(1)
    for kind in ("input", "target"):
        (folder / "images" / kind).mkdir(parents=True)
        for index in range(12):
            pixels = draw.integers(0, 2, (4, 4), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / kind / f"{index:02}.png")
    images = folder / "images"
    dataset = multiseg.Dataset.create(
        folder / "dataset", input=images / "input", target=images / "target", val_percent=34, seed=1
    )
    assert (len(dataset.train), len(dataset.val)) == (8, 4), (len(dataset.train), len(dataset.val))
    expected: dict[str, Any] = {"content_hash": dataset.content_hash, "runs": {}}
    for backend, (name, text) in FILES.items():
        (folder / "models" / backend).mkdir(parents=True)
        model = folder / "models" / backend / name
        model.write_text(text)
        common: dict[str, Any] = dict(
            dataset=dataset, backend=backend, model=model, epochs=2, batch_size=4, subtract_mean="none", lr_policy="fixed",
            loss="l2", seed=7, threads=1,
        )  # fmt: skip
        options = {"momentum": 0.5, "weight_decay": 0} | ({"dampening": 0} if backend == "torch" else {})
        exact = multiseg.Job(**common, solver="sgd", solver_options=options, learning_rate=1.0)
        adam = multiseg.Job(
            **common, recipe="equal", solver="adam", learning_rate=0.125, augment={"flip": "both", "noise": 5}
        )
        for name, job in {"exact": exact, "adam": adam}.items():
            with suppress(Interrupted):
                job.train(folder / "runs" / backend / f"{name}-interrupted", progress=interrupt)
        with adam.train(folder / "other" / backend, progress=False) as run:
            adam_weights = weights_of(run)
        with exact.train(folder / "runs" / backend / "exact-finished", progress=False) as run:
            outputs: list[list[float]] = []
            measures = run.test_db(
                folder / "dataset/val_db/features",
                each=lambda index, output, outputs=outputs: outputs.append(output.array.ravel().tolist()),
            )
            expected["runs"][backend] = {
                "weights": weights_of(run),
                "adam_weights": adam_weights,
                "history": run.history,
                "test_one": run.test_one(images / "input/00.png").array.ravel().tolist(),
                "test_db": {name: value for name, value in measures.items() if "second" not in name},
                "test_db_outputs": outputs,
            }
    (folder / "expected.json").write_text(json.dumps(expected, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
