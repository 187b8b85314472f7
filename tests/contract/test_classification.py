"""Networks that classify images: labels of one class index, an output that is a vector, over all backends and both recipes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import multiseg
from multiseg import Job
from multiseg.cli import main
from multiseg.dataset.records import Datum

MEANS = (20, 60, 100, 140, 180, 220, 250)  # of the pixels of each class
NETWORK = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } include { stage: "deploy" } }
layer { name: "td" type: "Data" top: "data" top: "label" include { stage: "train" } data_param { batch_size: 4 } }
layer { name: "vd" type: "Data" top: "data" top: "label" include { stage: "val" } data_param { batch_size: 4 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: OUTPUTS weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""


def make(folder: Path, classes: int) -> tuple[multiseg.Dataset, Path]:
    """Return a dataset whose records hold their class, as DIGITS' classification datasets, and a network for it."""
    draw = np.random.default_rng(0)
    for split, count in (("train_db", 28), ("val_db", 14)):
        (folder / "db" / split / "features").mkdir(parents=True)
        with (
            lmdb.open(str(folder / "db" / split / "features"), map_size=1 << 24) as file,
            file.begin(write=True) as records,
        ):
            for number in range(count):
                pixels = draw.normal(MEANS[number % classes], 30, (1, 8, 8)).clip(0, 255).astype(np.uint8)
                datum = Datum(channels=1, height=8, width=8, label=number % classes, data=pixels.tobytes())
                records.put(b"%09d" % number, datum.SerializeToString())
    (folder / "net.prototxt").write_text(NETWORK.replace("OUTPUTS", str(classes)))
    return multiseg.Dataset.open(folder / "db"), folder / "net.prototxt"


def reference(run: multiseg.Run, split: Any, classes: int) -> dict[str, float]:
    """Return loss, accuracy and top-5 accuracy in float64 from the run's weights (one dense layer), outside multiseg's code."""
    with run:
        weights = run.worker().call("get_weights")
    features, labels = split.read(range(len(split)))
    matrix = weights["ip.weight"].reshape(classes, 64).astype(np.float64)
    scores = features.reshape(len(features), 64) @ matrix.T + weights["ip.bias"]
    truth = labels.ravel()
    logs = scores - scores.max(1, keepdims=True)
    logs -= np.log(np.exp(logs).sum(1, keepdims=True))
    losses = -logs[np.arange(len(truth)), truth]
    if run.backend == "caffe":
        losses = np.minimum(losses, -np.log(np.finfo(np.float32).tiny))  # softmax_loss_layer.cpp: log(max(p, FLT_MIN))
    order = np.argsort(-scores, axis=1, kind="stable")
    return {
        "val_loss": float(losses.mean()),
        "accuracy": float((order[:, 0] == truth).mean()),
        "top5_accuracy": float((order[:, :5] == truth[:, None]).any(1).mean()),
    }


@pytest.mark.parametrize("recipe", ["tutorial", "equal"])
def test_a_network_that_ends_in_a_vector(backend: str, recipe: str, tmp_path: Path) -> None:
    dataset, model = make(tmp_path, 7)
    assert dataset.labels.kind == "classes"
    job = Job(
        dataset=dataset, backend=backend, model=model, recipe=recipe, epochs=4, batch_size=4, val_batch_size=5, seed=1, threads=1,
        learning_rate=1e-6, subtract_mean="none", keep="best", metric="accuracy",
    )  # fmt: skip
    run = job.train(tmp_path / "run", progress=False)
    last = run.history[-1]
    expected = reference(run, dataset.val, 7)
    for key, value in expected.items():
        assert last[key] == pytest.approx(value, rel=1e-4), key
    assert last["iou"] is None and last["pixel_accuracy"] is None and last["mean_accuracy"] is not None
    best = max(run.history[1:], key=lambda row: row["accuracy"])
    assert run.summary["best_epoch"] == best["epoch"]
    assert {snapshot.name for snapshot in (tmp_path / "run" / "snapshots").iterdir()} == {
        f"epoch-{epoch:04}" for epoch in (best["epoch"], 4)
    }
    with run:
        tested = run.test_db(dataset.path / "val_db" / "features", batch_size=3)
        for key in expected:
            assert tested[key] == pytest.approx(last[key], rel=1e-5), key
        assert np.sum(tested["confusion"]) == 14 and [row["pixels"] for row in tested["per_class"]] == [2] * 7
        assert np.trace(tested["confusion"]) == round(tested["accuracy"] * 14)


def test_tests_print_the_best_classes(backend: str, tmp_path: Path) -> None:
    dataset, model = make(tmp_path, 3)
    more: dict[str, Any] = {"epochs": 1, "batch_size": 4, "seed": 1, "threads": 1, "learning_rate": 1e-6}
    job = Job(dataset=dataset, backend=backend, model=model, subtract_mean="none", **more)
    job.train(tmp_path / "run", progress=False).close()
    images = []
    for number in range(3):
        images.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(np.full((8, 8), MEANS[number], np.uint8)).save(images[-1])
    with multiseg.Run.open(tmp_path / "run") as run:
        output = run.test_one(images[0])
        scores = output.array.ravel()
        assert output.classifies and output.array.shape == (3, 1, 1)
        assert [index for index, _ in output.best()] == np.argsort(-scores).tolist()
    done = CliRunner().invoke(main, ["test-one", str(tmp_path / "run"), images[0]])
    assert done.exit_code == 0 and done.stdout.splitlines()[0].startswith(f"class {scores.argmax()}  score ")
    done = CliRunner().invoke(main, ["test-one", str(tmp_path / "run"), images[0], "--json"])
    listed = [entry["class"] for entry in json.loads(done.stdout)["classes"]]
    assert listed == np.argsort(-scores).tolist()
    assert (
        CliRunner()
        .invoke(main, ["test-one", str(tmp_path / "run"), images[0], "-o", str(tmp_path / "x.png")])
        .exit_code
    )
    done = CliRunner().invoke(main, ["test-list", str(tmp_path / "run"), *images, "-o", str(tmp_path / "list")])
    assert done.exit_code == 0 and f"{images[0]}: class {scores.argmax()} (" in done.stdout
    with (tmp_path / "list" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == images and int(rows[0]["class_1"]) == scores.argmax()
    database = str(dataset.path / "val_db" / "features")
    done = CliRunner().invoke(main, ["test-db", str(tmp_path / "run"), database, "-o", str(tmp_path / "db-out")])
    assert done.exit_code == 0 and "confusion: rows are labels" in done.stdout
    assert json.loads((tmp_path / "db-out" / "metrics.json").read_text())["accuracy"] is not None
    comparison = multiseg.compare([tmp_path / "run"])
    page = comparison.to_html(tmp_path / "page.html").read_text()
    assert "Accuracy" in page and "Accuracy" in comparison.headline and "L1" not in comparison.to_markdown()
    assert comparison.check(["accuracy>=0"]) == [] and len(comparison.check(["accuracy>1"])) == 1
