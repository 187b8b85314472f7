"""Masks of 0 and 1 with a sigmoid cross entropy: history and test-db count the object, as a calculation from the outputs does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg import Job
from multiseg.errors import SettingsError

NETWORKS = {
    "caffe": (
        "net.prototxt",
        """
layer { name: "data" type: "Data" top: "data" include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "label" include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "data" include { phase: TEST stage: "val" } }
layer { name: "data" type: "Data" top: "label" include { phase: TEST stage: "val" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 1 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "conv" bottom: "label" top: "loss" exclude { stage: "deploy" } }
""",
    ),
    "torch": (
        "net.py",
        """
from torch import nn
def network(params):
    return {"model": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1)), "loss": nn.BCEWithLogitsLoss()}
""",
    ),
    "tensorflow": (
        "net.py",
        """
class UserModel(Tower):
    @model_property
    def inference(self):
        x = tf.reshape(self.x, [-1, *self.input_shape])
        return tf.layers.conv2d(x, 1, 3, padding="same", name="conv")

    @model_property
    def loss(self):
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=self.y, logits=self.inference))
""",
    ),
}


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draw = tmp_path_factory.mktemp("binary"), np.random.default_rng(1)
    for value in (1, 255):
        for name in ("input", "target"):
            (folder / str(value) / name).mkdir(parents=True)
        for number in range(8):
            mask = draw.random((8, 8)) < 0.3
            picture = (draw.integers(0, 100, (8, 8)) + 100 * mask).astype(np.uint8)
            Image.fromarray(picture).save(folder / str(value) / "input" / f"{number}.png")
            Image.fromarray((mask * value).astype(np.uint8)).save(folder / str(value) / "target" / f"{number}.png")
    return folder


def create(masks: Path, value: int, out: Path, **options: object) -> multiseg.Dataset:
    folders = {"input": masks / str(value) / "input", "target": masks / str(value) / "target"}
    return multiseg.Dataset.create(out, val_percent=50, seed=1, **folders, **options)  # type: ignore[arg-type]


def test_the_best_epoch_is_chosen_by_the_loss(backend: str, masks: Path, tmp_path: Path) -> None:
    """Differences of logits and labels of 0 and 1 are not defined."""
    dataset = create(masks, 1, tmp_path / "dataset")
    name, text = NETWORKS[backend]
    (tmp_path / name).write_text(text)
    job = Job(
        dataset=dataset, backend=backend, model=tmp_path / name, epochs=3, batch_size=2, learning_rate=1e-5, seed=1, threads=1,
        lr_policy="fixed",
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        assert {row[key] for row in run.history for key in ("l1", "l2")} == {None}
        losses = {row["epoch"]: row["val_loss"] for row in run.history if row["iteration"]}
        assert run.summary["best_epoch"] == min(losses, key=lambda epoch: losses[epoch])
        features, labels = dataset.val.read(range(len(dataset.val)))
        assert labels is not None
        logits = np.float64(run.predict(features))
        expected = np.mean(np.logaddexp(0, logits) - logits * labels) * (64 if backend == "caffe" else 1)
        assert run.history[-1]["val_loss"] == pytest.approx(expected, rel=1e-5)
        tested = run.test_db(dataset.path / "val_db" / "features")
        assert (tested["l1"], tested["l2"]) == (None, None)


@pytest.mark.parametrize("options", [{}, {"labels": "classes"}, {"foreground": "dark"}])
def test_the_object_is_counted(backend: str, masks: Path, tmp_path: Path, options: dict[str, str]) -> None:
    dataset = create(masks, 1, tmp_path / "dataset", **options)
    name, text = NETWORKS[backend]
    (tmp_path / name).write_text(text)
    job = Job(
        dataset=dataset, backend=backend, model=tmp_path / name, epochs=2, batch_size=2, learning_rate=1e-3, seed=1, threads=1,
        metric="iou", lr_policy="fixed",
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        features, labels = dataset.val.read(range(len(dataset.val)))
        assert labels is not None
        predicted, true = run.predict(features) > 0, labels > 0
        if options.get("foreground") == "dark":
            predicted, true = ~predicted, ~true
        expected = (predicted & true).sum() / (predicted | true).sum()
        assert run.history[-1]["iou"] == pytest.approx(expected, abs=1e-12)
        tested = run.test_db(dataset.path / "val_db" / "features")
        assert tested["iou"] == pytest.approx(expected, abs=1e-12)
        assert tested["pixel_accuracy"] == pytest.approx((predicted == true).mean(), abs=1e-12)


def test_labels_of_255_are_refused_before_training(backend: str, masks: Path, tmp_path: Path) -> None:
    dataset = create(masks, 255, tmp_path / "dataset")
    name, text = NETWORKS[backend]
    (tmp_path / name).write_text(text)
    job = Job(dataset=dataset, backend=backend, model=tmp_path / name, epochs=1, batch_size=2, seed=1, threads=1)
    with pytest.raises(SettingsError, match=r"its loss takes labels of 0 to 1; .* 0 to 255: .*label_map='255:1'"):
        job.train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    mapped = create(masks, 255, tmp_path / "mapped", label_map="255:1")
    assert mapped.labels.foreground.side == "light"
