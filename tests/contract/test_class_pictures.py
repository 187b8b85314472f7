"""Pictures of a network that scores classes of pixels, with every backend: class PNGs, overlays, layers, a dataset of outputs."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import multiseg
from multiseg.cli import main
from multiseg.dataset.check import check_dataset

NET = """
layer { name: "data" type: "Data" top: "data" exclude { stage: "deploy" } }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } }
layer { name: "data" type: "Input" top: "data" include { stage: "deploy" }
        input_param { shape { dim: 1 dim: 3 dim: 8 dim: 12 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss"
        loss_param { ignore_label: 255 } exclude { stage: "deploy" } }
"""
NAMES = ("background", "cat", "dog", "bird")


def run_command(*arguments: Any) -> dict[str, Any]:
    done = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def run(backend: str, tmp_path: Path) -> multiseg.Run:
    draw = np.random.default_rng(4)
    for folder in ("input", "target"):
        (tmp_path / folder).mkdir()
    for number in range(8):
        mask = draw.integers(0, 4, (8, 12), dtype=np.uint8)
        image = (mask[..., None] * np.array([60, 40, 20]) + draw.integers(0, 30, (8, 12, 3))).astype(np.uint8)
        mask[0] = 255
        Image.fromarray(image).save(tmp_path / "input" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "target" / f"{number}.png")
    dataset = multiseg.Dataset.create(
        tmp_path / "dataset", input=tmp_path / "input", target=tmp_path / "target", val_percent=50, seed=1,
        labels="classes", classes=NAMES,
    )  # fmt: skip
    (tmp_path / "net.prototxt").write_text(NET)
    job = multiseg.Job(
        dataset=dataset, backend=backend, model=tmp_path / "net.prototxt", epochs=1, batch_size=2, learning_rate=1e-4,
        seed=1, metric="miou",
    )  # fmt: skip
    return job.train(tmp_path / "run", progress=False)


def test_commands_write_class_pictures_and_overlays(run: multiseg.Run, tmp_path: Path) -> None:
    assert run.summary["best_epoch"] == 1 and run.history[-1]["miou"] is not None
    image, database = tmp_path / "input" / "3.png", run.dataset.path / "val_db" / "features"
    with run:
        expected = run.test_one(image)
        tested = run.test_db(database)
    scores = expected.array
    assert scores.shape == (4, 8, 12) and np.array_equal(expected.classes, scores.argmax(axis=0))

    facts = run_command("test-one", run.path, image, "-o", tmp_path / "one.png", "--overlay", "--show-layers")
    assert [Path(name).name for name in facts["files"]] == [
        "one.png", "one-overlay.png", "one-layers.html", "one-layers.json"
    ]  # fmt: skip
    assert sum(row["pixels"] for row in facts["class_pixels"]) == 8 * 12
    picture = Image.open(tmp_path / "one.png")
    assert picture.mode == "P" and np.array_equal(np.asarray(picture), expected.classes)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "one-overlay.png")), np.asarray(expected.overlay()))
    assert "conv" in json.loads((tmp_path / "one-layers.json").read_text())["activations"]

    run_command("test-list", run.path, image, "-o", tmp_path / "list", "--overlay")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "list" / "0000-3.png")), expected.classes)
    assert (tmp_path / "list" / "0000-3-overlay.png").exists()

    run_command("test-db", run.path, database, "-o", tmp_path / "db", "--overlay")
    assert len(list((tmp_path / "db").glob("*-overlay.png"))) == 4
    counts = np.zeros((4, 4), int)
    for index in range(4):
        label, classes = run.dataset.val[index][1][0], np.asarray(Image.open(tmp_path / "db" / f"{index:08}.png"))
        np.add.at(counts, (label[label < 255], classes[label < 255]), 1)
    assert counts.tolist() == tested["confusion"]

    run_command("test-db", run.path, database, "-o", tmp_path / "lmdb", "--format", "lmdb")
    dataset = multiseg.Dataset.open(tmp_path / "lmdb")
    assert check_dataset(dataset.path).problems == [] and dataset.labels == run.dataset.labels
    assert np.array_equal(dataset.train[0][1][0], np.asarray(Image.open(tmp_path / "db" / "00000000.png")))


def embedded(page: str, name: str) -> Any:
    """Return the JSON of a page's script element."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_a_comparison_has_classes_confusion_and_the_worst_images(run: multiseg.Run, tmp_path: Path) -> None:
    with run:
        tested = run.test_db(run.dataset.path / "val_db" / "features")
        outputs = run.predict(run.dataset.val.read(range(4))[0]).argmax(axis=1)
    comparison = multiseg.compare([run.path], images=4, grid=tmp_path / "input" / "3.png")
    assert comparison.check(require=["miou>=0"]) == [] and "miou" in comparison.check(require=["miou>1"])[0]
    page = comparison.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert comparison.left_out == {} and "are foreground" not in page

    data = embedded(page, "class-data")
    assert data["names"] == list(NAMES) and data["background"] == 0 and data["ignored"] == [255]
    assert data["confusions"] == [tested["confusion"]]
    table = page[page.index('id="class-table"') : page.index("</tfoot>")]
    assert re.findall(r'<th scope="row" data-value="(\w+)">', table) == list(NAMES)
    for row in tested["per_class"]:
        assert f"{row['iou']:.3f}" in table and f"{row['pixels']:,}" in table

    scores = []  # mean IoU of each image, by definition
    for index, predicted in enumerate(outputs):
        label = run.dataset.val[index][1][0]
        pairs = [((label == c), (predicted == c) & (label < 255)) for c in range(4)]
        scores.append(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs if (a | b).any()]))
    shown = [int(number) for number in re.findall(r"<h3>Image (\d+)", page)]
    assert shown == np.argsort(scores, kind="stable").tolist()
    assert [float(text) for text in re.findall(r"mean IoU ([\d.]+)", page)] == pytest.approx(sorted(scores), abs=6e-4)

    curves = embedded(page, "curves-data")["classes"]
    assert curves["names"] == list(NAMES) and len(curves["runs"][0]) == len(run.history) == 2
    assert np.mean(curves["runs"][0][1]) == pytest.approx(run.history[1]["miou"], abs=1e-3)
    assert curves["runs"][0][1] == pytest.approx([row["iou"] for row in tested["per_class"]], abs=1e-3)


@pytest.mark.first_backend
def test_runs_of_another_kind_are_left_out_of_the_pictures(
    run: multiseg.Run, dataset: multiseg.Dataset, backend: str, tmp_path: Path
) -> None:
    images = multiseg.Job(dataset=dataset, backend=backend, epochs=1, batch_size=36, seed=1).train(
        tmp_path / "images", progress=False
    )
    comparison = multiseg.compare([run.path, images.path], images=2)
    comparison.to_html(tmp_path / "page.html")
    assert ["not classes of pixels" in reason for reason in comparison.left_out.values()] == [True]


def test_one_channel_for_two_classes_gives_a_class_picture(backend: str, tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    for folder, most in (("input", 256), ("target", 2)):
        (tmp_path / folder).mkdir()
        for number in range(6):
            pixels = draw.integers(0, most, (8, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    dataset = multiseg.Dataset.create(
        tmp_path / "dataset", input=tmp_path / "input", target=tmp_path / "target", seed=1, val_percent=34,
        labels="classes", classes=["background", "organ"],
    )  # fmt: skip
    one_output = NET.replace("num_output: 4", "num_output: 1").replace("dim: 3 dim: 8", "dim: 1 dim: 8")
    (tmp_path / "net.prototxt").write_text(one_output[: one_output.index('layer { name: "loss"')])
    job = multiseg.Job(
        dataset=dataset, backend=backend, model=tmp_path / "net.prototxt", loss="binary_cross_entropy", epochs=1, batch_size=2,
        learning_rate=1e-4, seed=1,
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        result = run.test_one(tmp_path / "input" / "0.png")
        expected = (result.array[0] >= 0).astype(np.uint8)  # logits: a probability from one half
        assert np.array_equal(result.classes, expected) and result.image.mode == "P"
        assert np.array_equal(np.asarray(result.image), expected)
        assert multiseg.compare([run], images=2).to_html(tmp_path / "page.html").read_text().count("<canvas") == 8


@pytest.mark.nightly  # images of a size at which the output dominates
def test_large_outputs_take_less_than_twice_their_memory(backend: str, tmp_path: Path) -> None:
    """The outputs of 21 classes are received, counted and drawn one at a time, whatever the size of validation batches."""
    for folder in ("input", "target"):
        (tmp_path / folder).mkdir()
    mask = np.tile(np.arange(21, dtype=np.uint8), (768, 49))[:, :1024]
    mask[0] = 255
    for number in range(4):
        Image.fromarray(np.stack([mask, mask + 20, mask + 99], axis=-1)).save(tmp_path / "input" / f"{number}.png")
        Image.fromarray(mask).save(tmp_path / "target" / f"{number}.png")
    dataset = multiseg.Dataset.create(
        tmp_path / "dataset",
        input=tmp_path / "input",
        target=tmp_path / "target",
        seed=1,
        val_percent=75,
        labels="classes",
    )
    net = NET.replace("num_output: 4", "num_output: 21").replace("dim: 8 dim: 12", "dim: 768 dim: 1024")
    (tmp_path / "net.prototxt").write_text(net)
    job = multiseg.Job(
        dataset=dataset, backend=backend, model=tmp_path / "net.prototxt", epochs=1, batch_size=1, val_batch_size=3,
        val_interval=100, learning_rate=1e-6, seed=1,
    )  # fmt: skip
    with job.train(tmp_path / "run", progress=False) as run:
        run.worker()
        tracemalloc.start()
        result = run.test_db(dataset.path / "val_db" / "features", each=lambda index, output: print(output.overlay()))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert result["count"] == 3 and np.sum(result["confusion"]) == 3 * 767 * 1024
    assert peak < 2 * 21 * 768 * 1024 * 4
