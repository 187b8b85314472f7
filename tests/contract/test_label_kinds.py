"""Grey masks read as class indices: trained, kept in job.json, and tested again, also from a run made before that was kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg import Job, Run
from multiseg.errors import ModelError

SCORES = """from torch import nn

def network(params):
    return {"model": nn.Conv2d(1, 3, 3, padding=1), "loss": nn.CrossEntropyLoss()}
"""
MEASURES = ("l1", "l2", "pixel_accuracy", "iou")


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
    (tmp_path / "scores.py").write_text(SCORES)
    return tmp_path / "scores.py"


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
        assert [tested[key] for key in MEASURES] == [None] * len(MEASURES)
    path = tmp_path / "run" / "job.json"
    job = json.loads(path.read_text())
    assert job.pop("labels") == {"kind": "classes"}
    del job["network"]["labels"]
    path.write_text(json.dumps(job))
    with Run.open(tmp_path / "run") as old:
        assert old.labels is None
        again = old.test_db(masks.path / "val_db" / "features")
    assert {key: again[key] for key in ("val_loss", *MEASURES)} == {key: tested[key] for key in ("val_loss", *MEASURES)}


def test_a_named_loss_compares_them_as_images(
    backend: str, masks: multiseg.Dataset, scores: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="the labels are"):
        Job(**settings(masks, backend, scores, loss="l2")).train(tmp_path / "run", progress=False)


def test_images_are_stored_as_images(backend: str, masks: multiseg.Dataset, tmp_path: Path) -> None:
    model = tmp_path / "image.py"
    model.write_text(SCORES.replace("1, 3, 3", "1, 1, 3").replace("CrossEntropyLoss", "MSELoss"))
    with Job(**settings(masks, backend, model)).train(tmp_path / "run", progress=False) as run:
        assert run.labels is not None and run.labels.kind == "images"
        assert all(run.test_db(masks.path / "val_db" / "features")[key] is not None for key in MEASURES)
