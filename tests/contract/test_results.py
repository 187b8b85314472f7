"""Testing with a trained network, over every backend: sizes, orders, lists, databases, layers."""

from __future__ import annotations

import gc
import json
import re
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import multiseg
from helpers.fcn import fcn_layers, random_weights
from helpers.lending import start
from multiseg import backend as registry
from multiseg.cli import main
from multiseg.dataset.check import check_dataset
from multiseg.errors import ImageError
from multiseg.inference.output import Output
from multiseg.run.run import Run
from multiseg.training.preparation import network_spec


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def noise(path: Path, height: int, width: int) -> Path:
    values = np.random.default_rng(height * width).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(values).save(path)
    return path


@pytest.fixture
def colours(tmp_path: Path) -> multiseg.Dataset:
    """Colour pictures with a colour picture each as their target."""
    for folder in ("input", "target"):
        (tmp_path / folder).mkdir()
        for number in range(6):
            values = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / folder / f"{number}.png")
    return multiseg.Dataset.create(tmp_path / "colours", input=tmp_path / "input", target=tmp_path / "target", seed=1)


def test_orders_are_the_backends_unless_chosen(backend: str, colours: multiseg.Dataset, tmp_path: Path) -> None:
    """With weights that pass the image on, an asymmetric colour picture comes out as it went in, whatever the orders."""
    declared = registry.get(backend)
    model = tmp_path / declared.default_model_path.name
    model.write_text(declared.default_model_path.read_text().replace("num_output: 1 ", "num_output: 3 "))
    job = multiseg.Job(dataset=colours, backend=backend, model=model, epochs=1, batch_size=4, subtract_mean="none")
    weights = {name: np.zeros_like(value) for name, value in random_weights(channels=3).items()}
    for channel in range(3):
        weights["conv1.weight"][channel, channel, 1, 1] = 1
        for at in range(256):
            weights["conv2.weight"][256 * channel + at, channel, at // 16, at % 16] = 1
            weights["deconv.weight"][256 * channel + at, channel, at // 16, at % 16] = 1
    picture = Image.new("RGB", (48, 96), "white")
    picture.paste((200, 30, 90), (0, 0, 20, 10))  # a flag in the top left corner
    picture.save(tmp_path / "flag.png")
    values = np.moveaxis(np.asarray(picture), -1, 0)
    with job.train(tmp_path / "run", progress=False) as run:
        run.worker().call("set_weights", weights=weights)
        assert np.array_equal(run.test_one(tmp_path / "flag.png", resize=False).array, values)
        own = {"channel_order": declared.channel_order, "data_order": declared.data_order[1:]}
        assert np.array_equal(run.test_one(tmp_path / "flag.png", resize=False, **own).array, values)
        other = {"RGB": "BGR", "BGR": "RGB"}[declared.channel_order]
        swapped = run.test_one(tmp_path / "flag.png", resize=False, channel_order=other)
        assert np.array_equal(swapped.array, values[::-1])
        with pytest.raises(ImageError, match="one or three channels"):
            wrong = {"CHW": "HWC", "HWC": "CHW"}[declared.data_order[1:]]
            print(run.test_one(tmp_path / "flag.png", resize=False, data_order=wrong).image)


def test_a_list_of_mixed_images_with_one_missing(backend: str, trained: Any, tmp_path: Path) -> None:
    """Sizes and kinds mixed: 99 of 100 are done as they are one by one, the missing one is reported, exit 1."""
    draw = np.random.default_rng(1)
    paths = []
    for number in range(100):
        paths.append(tmp_path / f"{number}.png")
        height, width = [(32, 32), (64, 48), (20, 50)][number // 5 % 3]
        grey = draw.integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(grey).convert(("L", "1", "RGB", "RGBA")[number % 4]).save(paths[-1])
    paths[40].unlink()
    done = command("test-list", trained(backend), *paths, "-o", tmp_path / "out", "--format", "npy", "--json")
    assert done.exit_code == 1
    assert f"{paths[40]}: cannot be read" in done.stderr and "1 of 100" in done.stderr
    said = json.loads(done.stdout)
    assert said["failed"] == 1 and [number for number, each in enumerate(said["images"]) if "error" in each] == [40]
    assert len(list((tmp_path / "out").iterdir())) == 99
    with Run.open(trained(backend)) as run:
        for number in (0, 1, 2, 3, 5, 12, 99):
            alone = run.test_one(paths[number]).array
            together = np.load(said["images"][number]["output"])
            assert together.shape == (1, 32, 32) and np.abs(together - alone).max() < 1e-3
        failures: list[Path] = []
        outputs = run.test_list(paths, failed=lambda path, error: failures.append(path))
        assert (len(outputs), failures) == (99, [paths[40]])
        assert [each.source for each in outputs] == [path for path in paths if path != paths[40]]
        with pytest.raises(ImageError, match=r"40\.png"):
            run.test_list(paths)
        sizes = [each.array.shape for each in run.test_list(paths[:20], resize=False, pad=True)]
        assert sizes == [(1, *[(32, 32), (64, 48), (20, 50)][number // 5 % 3]) for number in range(20)]


def test_a_database_in_a_stream_into_a_dataset(backend: str, trained: Any, dataset: Any, tmp_path: Path) -> None:
    database = dataset.path / "val_db" / "features"
    done = command("test-db", trained(backend), database, "-o", tmp_path / "out", "--format", "lmdb", "--json")
    assert done.exit_code == 0, done.stderr
    written = multiseg.Dataset.open(tmp_path / "out")
    assert check_dataset(tmp_path / "out").problems == []
    features, labels = dataset.val.read(range(len(dataset.val)))
    assert np.array_equal(written.train.read(range(len(features)))[0], features)
    found: dict[int, Output] = {}
    with Run.open(trained(backend)) as run:
        outputs = run.predict(features)
        result = run.test_db(database, batch_size=5, each=found.__setitem__)
        again = run.test_db(written.path / "train_db" / "features")
    assert np.array_equal(written.train.read(range(len(features)))[1], np.rint(np.clip(outputs, 0, 255)))
    assert list(found) == list(range(len(features)))
    assert np.abs(np.stack([found[index].array for index in found]) - outputs).max() < 1e-3
    assert result["count"] == len(dataset.val)
    difference = outputs.astype(np.float64) - labels
    assert result["l1"] == pytest.approx(np.abs(difference).mean(), rel=1e-5)
    assert result["l2"] == pytest.approx(np.square(difference).mean(), rel=1e-5)
    assert result["val_loss"] == pytest.approx(run.history[-1]["val_loss"], rel=1e-5)
    timed = ("seconds", "images_per_second")
    said = json.loads(done.stdout)
    assert said == json.loads((tmp_path / "out" / "metrics.json").read_text())
    for key in result:
        assert key in timed or said[key] is result[key] is None or said[key] == pytest.approx(result[key], rel=1e-5)
    assert again["pixel_accuracy"] == 1, "a network agrees with its own outputs"


CLASSES = """
from torch import nn

def network(params):
    return {"model": nn.Sequential(nn.Conv2d(1, 5, 3, padding=1)), "loss": nn.CrossEntropyLoss()}
"""


@pytest.mark.needs("torch")
def test_class_numbers_have_a_loss_and_no_measures_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(CLASSES)
    for folder, most in (("input", 256), ("target", 5)):
        (tmp_path / folder).mkdir()
        for number in range(8):
            values = np.random.default_rng(number).integers(0, most, (16, 16), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / folder / f"{number}.png")
    dataset = multiseg.Dataset.create(
        tmp_path / "db", input=tmp_path / "input", target=tmp_path / "target", val_percent=25
    )
    job = multiseg.Job(dataset=dataset, backend="torch", model=tmp_path / "net.py", epochs=1, batch_size=3)
    with job.train(tmp_path / "run", progress=False) as run:
        result = run.test_db(dataset.path / "val_db" / "features")
        output = run.test_one(tmp_path / "input" / "0.png")
    assert result["val_loss"] == pytest.approx(run.history[-1]["val_loss"], rel=1e-5)
    assert result["count"] == 2 and result["iou"] is None and result["l1"] is None
    assert output.array.shape == (5, 16, 16)
    assert np.array_equal(np.asarray(output.image), output.array.argmax(axis=0))


def test_a_database_of_any_length_takes_the_same_memory(backends: list[str], trained: Any, tmp_path: Path) -> None:
    images = multiseg.create_images(tmp_path / "images", count=2000, seed=1)
    peaks = []
    with Run.open(trained(backends[0])) as run:
        for count in (400, 2000):
            folder = tmp_path / str(count)
            for kind in ("input", "target"):
                (folder / kind).mkdir(parents=True)
                for path in sorted((images / kind).iterdir())[:count]:
                    path.rename(folder / kind / path.name) if count == 2000 else shutil.copy(path, folder / kind)
            made = multiseg.Dataset.create(
                folder / "db", input=folder / "input", target=folder / "target", val_percent=0
            )
            gc.collect()
            gc.disable()  # batches must be freed as they are used, not at the next collection of reference cycles
            tracemalloc.start()
            result = run.test_db(made.path / "train_db" / "features", each=lambda index, output: None)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            gc.enable()
            assert result["count"] == count
    # the outputs of the 1600 more alone would be 6.5 MB; how far reading is ahead makes a difference of 1.5
    assert peaks[1] < peaks[0] + 3_000_000


BRANCHES = """
layer { name: "data" type: "Data" top: "data" }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "x" convolution_param { num_output: 4 kernel_size: 3 pad: 1
        weight_filler { type: "gaussian" std: 0.1 } bias_filler { type: "constant" value: -3 } } }
layer { name: "relu1" type: "ReLU" bottom: "x" top: "x" }
layer { name: "cut" type: "Slice" bottom: "x" top: "a" top: "b" slice_param { slice_point: 3 } }
layer { name: "half" type: "Power" bottom: "b" top: "b" power_param { scale: 0.5 } }
layer { name: "joined" type: "Concat" bottom: "a" bottom: "b" top: "joined" }
layer { name: "conv2" type: "Convolution" bottom: "joined" top: "y" convolution_param { num_output: 1 kernel_size: 1 } }
"""


@pytest.mark.needs("caffe")
def test_activations_are_called_as_the_file_is_described(dataset: Any, tmp_path: Path) -> None:
    """In Caffe, where layers overwrite blobs in place, have several tops, and are given Split layers by Caffe itself."""
    model = tmp_path / "net.prototxt"
    model.write_text(BRANCHES)
    settings = multiseg.Job(dataset=dataset, backend="caffe", model=model, loss="l2", seed=1).resolve()
    features = dataset.val.read([0, 1])[0].astype(np.float32)
    with start(settings.backend, settings.threads) as worker:
        worker.call("load", spec=network_spec(settings, dataset).to_json())
        _, _, made = worker.call("predict", features=features, labels=None, activations=True)
    assert list(made) == [name for layer in multiseg.describe(model, (1, 32, 32)).layers for name in layer.outputs]
    assert made["conv1"].min() < 0
    assert np.array_equal(made["relu1"], np.maximum(made["conv1"], 0))
    assert np.array_equal(made["cut:0"], made["relu1"][:, :3])
    assert np.array_equal(made["cut:1"], made["relu1"][:, 3:]) and made["cut:1"].any()
    assert np.array_equal(made["joined"], np.concatenate([made["cut:0"], made["cut:1"] / 2], axis=1))


FUNCTIONS = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 16, stride=16)
        self.act = nn.ReLU(inplace=True)
        self.up = nn.ConvTranspose2d(4, 1, 16, stride=16)

    def forward(self, x):
        x = self.act(self.conv1(x) - 3)
        return F.relu(self.act(self.up(x)) - 0.01)
"""


@pytest.mark.needs("torch")
@pytest.mark.parametrize("lowering", [True, False])
def test_functions_and_modules_called_again_are_layers_too(dataset: Any, tmp_path: Path, lowering: bool) -> None:
    """In PyTorch, under the names that the file's description has."""
    model = tmp_path / "net.py"
    model.write_text(FUNCTIONS)
    settings = multiseg.Job(
        dataset=dataset, backend="torch", model=model, loss="l2", seed=1, lowering=lowering
    ).resolve()
    features = dataset.val.read([0, 1, 2])[0].astype(np.float32)
    with start(settings.backend, settings.threads) as worker:
        described = worker.call("load", spec=network_spec(settings, dataset).to_json())
        output, _, made = worker.call("predict", features=features, labels=None, activations=True)
        plain, _, _ = worker.call("predict", features=features, labels=None)
        known = multiseg.describe(model, (1, 32, 32), worker)
    assert described["lowered"] == (["conv1", "up"] if lowering else [])
    assert list(made) == [name for layer in known.layers for name in layer.outputs]
    conv, moved, act, up, again, less, last = made.values()
    assert conv.min() < 0, "though what comes after works in place"
    assert np.array_equal(act, np.maximum(moved, 0)) and np.array_equal(moved, conv - 3)
    assert np.array_equal(again, np.maximum(up, 0)) and up.min() < 0
    assert np.array_equal(last, np.maximum(less, 0)) and np.array_equal(last, output)
    assert np.array_equal(output, plain)


def test_layers_with_their_statistics(backend: str, trained: Any, tmp_path: Path) -> None:
    path, weights = noise(tmp_path / "noise.png", 32, 48), random_weights()
    with Run.open(trained(backend)) as run:
        run.worker().call("set_weights", weights=weights)
        layers = run.layers(path, resize=False)
        mean = run.layout.mean
        output = run.test_one(path, resize=False).array
    expected = fcn_layers(layers.input[None] - mean.astype(np.float64), weights)
    assert len(layers.activations) == 5
    for made, right in zip(layers.activations.values(), expected, strict=True):
        assert made.shape == right.shape[1:]
        assert np.abs(made - right[0]).max() < 1e-4 * np.abs(right).max()
    assert np.array_equal(layers.activations["deconv"], output)
    assert all(np.array_equal(layers.weights[name], value) for name, value in weights.items())

    page = layers.to_html(tmp_path / "layers.html")
    said = json.loads(page.with_suffix(".json").read_text())
    conv2 = said["weights"]["conv2.weight"]
    assert conv2["shape"] == [1024, 32, 16, 16]
    assert conv2["mean"] == pytest.approx(weights["conv2.weight"].mean(dtype=np.float64), rel=1e-6)
    assert conv2["std"] == pytest.approx(weights["conv2.weight"].std(dtype=np.float64), rel=1e-6)
    assert [conv2["minimum"], conv2["maximum"]] == [weights["conv2.weight"].min(), weights["conv2.weight"].max()]
    assert len(conv2["histogram"]) == 20 and sum(conv2["histogram"]) == weights["conv2.weight"].size
    text = page.read_text()
    assert all(name in text for name in [*layers.activations, *layers.weights])
    assert text.count("<img") == 1 + 5 + 6 and not re.search(r"""(src|href)=["'](?!data:|#)""", text)
