"""Grey masks read as class indices: trained, kept in job.json, and tested again, also from a run made before that was kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from helpers.old_runs import change_job
from multiseg import Job, Run
from multiseg.errors import ModelError, SettingsError

# a prototxt is described without its framework, so that every backend can train it
SCORES = """
layer { name: "data" type: "Data" top: "data" include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "label" include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "data" include { phase: TEST stage: "val" } }
layer { name: "data" type: "Data" top: "label" include { phase: TEST stage: "val" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""
MEASURES = ("l1", "l2", "pixel_accuracy", "iou", "dice")
OF_IMAGES = ("l1", "l2", "iou")  # not defined for class indices
OF_CLASSES = ("pixel_accuracy", "miou", "mean_accuracy", "dice", "fwiou")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    folder, draw = tmp_path_factory.mktemp("masks"), np.random.default_rng(1)
    for name, most in (("input", 10), ("target", 3)):
        (folder / name).mkdir()
        for number in range(6):
            pixels = draw.integers(0, most, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=34, seed=1
    )


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    (tmp_path / "scores.prototxt").write_text(SCORES)
    return tmp_path / "scores.prototxt"


def settings(masks: multiseg.Dataset, backend: str, model: Path, **more: Any) -> Any:
    return {
        "dataset": masks, "backend": backend, "model": model, "epochs": 1, "batch_size": 2, "learning_rate": 1e-6, "seed": 1,
        "threads": 1, "metric": "val_loss", **more,
    }  # fmt: skip


def test_grey_masks_train_as_class_indices(backend: str, masks: multiseg.Dataset, scores: Path, tmp_path: Path) -> None:
    assert masks.labels.kind == "images"
    with Job(**settings(masks, backend, scores)).train(tmp_path / "run", progress=False) as run:
        assert run.labels is not None and run.labels.kind == "classes"
        tested = run.test_db(masks.path / "val_db" / "features")
        features, labels = masks.val.read(range(len(masks.val)))
        assert labels is not None
        output = run.predict(features).astype(np.float64)
        logs = output - np.log(np.exp(output).sum(1, keepdims=True))
        right = np.take_along_axis(logs, labels.astype(int), 1)
        assert tested["val_loss"] == pytest.approx(-right.mean(), rel=1e-4)
        assert [tested[key] for key in OF_IMAGES] == [None] * len(OF_IMAGES)
        predicted, truth = output.argmax(1).ravel(), labels.ravel()
        assert tested["pixel_accuracy"] == pytest.approx((predicted == truth).mean())
        unions = [((predicted == c) & (truth == c), (predicted == c) | (truth == c)) for c in range(3)]
        assert tested["miou"] == pytest.approx(np.mean([both.sum() / either.sum() for both, either in unions]))
        assert np.sum(tested["confusion"]) == truth.size

    def forget_labels(job: dict[str, Any]) -> None:
        assert job.pop("labels") == {"kind": "classes"}
        del job["network"]["labels"]

    change_job(tmp_path / "run", forget_labels)
    with Run.open(tmp_path / "run") as old:
        assert old.labels is None
        again = old.test_db(masks.path / "val_db" / "features")
    keys = ("val_loss", *OF_IMAGES, *OF_CLASSES)
    assert {key: again[key] for key in keys} == {key: tested[key] for key in keys}


def test_validation_of_class_indices_has_metrics_of_classes_and_none_of_images(
    backend: str, masks: multiseg.Dataset, scores: Path, tmp_path: Path
) -> None:
    """The default metric is one of images; the validation loss then selects the best snapshot, and ends the training."""
    more = {"epochs": 5, "patience": 2, "min_delta": 1e9}
    with Job(**settings(masks, backend, scores) | more).train(tmp_path / "run", progress=False) as run:
        history, summary = run.history, run.summary
        tested = run.test_db(masks.path / "val_db" / "features")
    assert history[-1]["val_loss"] == pytest.approx(tested["val_loss"], rel=1e-6)
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    for row in history:
        assert row["val_loss"] > 0
        assert [row[key] for key in OF_IMAGES] == [None] * len(OF_IMAGES)
        assert all(0 <= row[key] <= 1 for key in OF_CLASSES)
    best = min(history[1:], key=lambda row: row["val_loss"])
    assert summary["best_epoch"] == best["epoch"] and summary["stopped_early"] is True
    comparison = multiseg.compare([tmp_path / "run"], images=0)
    assert "Mean IoU" in comparison.headline and comparison.check(["val_loss<100"]) == []
    assert comparison.check(["iou>=0.1"]) == [f"{comparison.facts[0].label}: no iou, required iou >= 0.1"]


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"metric": "iou"}, "metric='iou': is not defined for class indices, .* val_loss, pixel_accuracy, dice, miou"),
        ({"metric": "accuracy"}, "metric='accuracy': is not defined for class indices"),
        ({"threshold": 3}, "threshold=3: divides images into foreground and background, .* leave it out"),
    ],
)
def test_a_setting_of_images_is_refused(
    backend: str, masks: multiseg.Dataset, scores: Path, tmp_path: Path, stated: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        Job(**settings(masks, backend, scores) | stated).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_named_loss_compares_them_as_images(
    backend: str, masks: multiseg.Dataset, scores: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="the labels are"):
        Job(**settings(masks, backend, scores, loss="l2")).train(tmp_path / "run", progress=False)


def test_images_are_stored_as_images(backend: str, masks: multiseg.Dataset, tmp_path: Path) -> None:
    model = tmp_path / "image.prototxt"
    model.write_text(SCORES.replace("num_output: 3", "num_output: 1").replace("SoftmaxWithLoss", "EuclideanLoss"))
    with Job(**settings(masks, backend, model)).train(tmp_path / "run", progress=False) as run:
        assert run.labels is not None and run.labels.kind == "images"
        tested = run.test_db(masks.path / "val_db" / "features")
        # labels of 0 to 2 are on one side of 128, so that nothing states an object
        assert [key for key in MEASURES if tested[key] is not None] == ["l1", "l2"]
    with Job(**settings(masks, backend, model, threshold=1.5)).train(tmp_path / "stated", progress=False) as run:
        tested = run.test_db(masks.path / "val_db" / "features")
        features, labels = masks.val.read(range(len(masks.val)))
        assert labels is not None
        predicted, true = run.predict(features) < 1.5, labels < 1.5
        assert tested["iou"] == pytest.approx((predicted & true).sum() / (predicted | true).sum())
        assert tested["pixel_accuracy"] == pytest.approx((predicted == true).mean())
