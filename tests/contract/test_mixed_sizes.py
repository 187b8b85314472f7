"""Datasets of mixed image sizes: trained, validated, tested and resumed with batches of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from helpers import zoo
from multiseg import Job, Run
from multiseg import backend as registry
from multiseg.dataset.feed import epoch_order
from multiseg.errors import ModelError, SettingsError
from multiseg.layout import Layout
from multiseg.model_files import shipped
from multiseg.network import CLASSES
from multiseg.settings.initialisation import initial_weights

NETWORK = """
layer { name: "td" type: "Data" top: "data" include { phase: TRAIN } }
layer { name: "tl" type: "Data" top: "label" include { phase: TRAIN } }
layer { name: "vd" type: "Data" top: "data" include { phase: TEST stage: "val" } }
layer { name: "vl" type: "Data" top: "label" include { phase: TEST stage: "val" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""
SIZES = [(8, 8), (12, 8), (8, 16), (10, 6)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    folder, draw = tmp_path_factory.mktemp("mixed"), np.random.default_rng(3)
    for name in ("input", "target"):
        (folder / name).mkdir()
    for number in range(12):
        mask = draw.integers(0, 3, SIZES[number % 4], dtype=np.uint8)
        image = (60 + 60 * mask + draw.normal(0, 20, mask.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / "input" / f"{number:02}.png")
        Image.fromarray(mask).save(folder / "target" / f"{number:02}.png")
    return multiseg.Dataset.create(
        folder / "db",
        input=folder / "input",
        target=folder / "target",
        val_percent=34,
        seed=1,
        mixed_sizes=True,
        labels="classes",
        classes=["background", "round", "square"],
    )


def job(dataset: multiseg.Dataset, backend: str, model: Path, **more: Any) -> Job:
    settings: dict[str, Any] = {
        "dataset": dataset, "backend": backend, "model": model, "epochs": 2, "batch_size": 1, "learning_rate": 1e-5, "seed": 1,
        "threads": 1, "subtract_mean": "none",
    }  # fmt: skip
    return Job(**settings | more)


def scores(weights: dict[str, Any], image: Any) -> Any:
    """Return the scores (3, H, W) of the network for an image (1, H, W), in float64."""
    padded = np.pad(image[0].astype(np.float64), 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    bias = weights["conv.bias"].astype(np.float64)
    return np.einsum("yxij,oij->oyx", windows, weights["conv.weight"][:, 0].astype(np.float64)) + bias[:, None, None]


def test_they_train_with_batches_of_one(backend: str, mixed: multiseg.Dataset, tmp_path: Path) -> None:
    model = tmp_path / "net.prototxt"
    model.write_text(NETWORK)
    events: list[dict[str, Any]] = []
    with job(mixed, backend, model, batch_size=None).train(tmp_path / "run", progress=events.append) as run:
        assert run.settings["batch_size"] == run.settings["val_batch_size"] == 1 and run.mixed_sizes
        weights = run.worker().call("get_weights")
        total, count, correct = 0.0, 0, 0
        for index in range(len(mixed.val)):
            image, label = mixed.val[index]
            assert label is not None
            values = scores(weights, image)
            logs = values - values.max(0) - np.log(np.exp(values - values.max(0)).sum(0))
            total -= np.take_along_axis(logs, label.astype(int), 0).sum()
            count, correct = count + label.size, correct + int((values.argmax(0) == label[0]).sum())
        tested = run.test_db(mixed.path / "val_db" / "features")
        for row in (run.history[-1], tested):
            assert row["val_loss"] == pytest.approx(total / count, rel=1e-4)
            assert row["pixel_accuracy"] == pytest.approx(correct / count)
        path = next(path for path in sorted((mixed.path.parent / "input").iterdir()))
        assert run.test_one(path).array.shape[1:] == np.asarray(Image.open(path)).shape
    before = {name: value for name, value in weights.items()}
    # the second epoch again, from the snapshot of the first: bit-exact
    again = job(mixed, backend, model)
    (tmp_path / "again").mkdir()

    class Enough(Exception):
        pass

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["iteration"] == len(mixed.train) + 3:
            raise Enough

    with pytest.raises(Enough):
        again.train(tmp_path / "again", progress=stop)
    with again.train(tmp_path / "again", resume=True, progress=False) as resumed:
        for name, value in resumed.worker().call("get_weights").items():
            assert np.array_equal(value, before[name]), name


def test_a_gradient_step_is_that_of_the_image(backend: str, mixed: multiseg.Dataset, tmp_path: Path) -> None:
    """One epoch of plain gradient descent, followed in NumPy float64, image by image."""
    model = tmp_path / "net.prototxt"
    model.write_text(NETWORK)
    options = {
        "recipe": "equal",
        "solver_options": {"momentum": 0.0},
        "lr_policy": "fixed",
        "keep": "all",
        "loss": None,
    }
    with job(mixed, backend, model, epochs=1, **options).train(tmp_path / "first", progress=False):
        pass
    with Run.open(tmp_path / "first") as run:
        final = run.worker().call("get_weights")
    order = epoch_order(len(mixed.train), 1, 0)
    shapes = {name: value.shape for name, value in final.items()}
    state = {name: np.asarray(v, np.float64) for name, v in initial_weights(shapes, 1, "RGB", (1, 1)).items()}
    state = {name: state.get(name, np.zeros(shape)) for name, shape in shapes.items()}
    for index in order:
        image, label = mixed.train[int(index)]
        values = scores(state, image)
        chances = np.exp(values - values.max(0))
        chances /= chances.sum(0)
        slope = (chances - (label[0] == np.arange(3)[:, None, None])) / label.size
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(image[0].astype(np.float64), 1), (3, 3))
        state["conv.weight"] = state["conv.weight"] - 1e-5 * np.einsum("oyx,yxij->oij", slope, windows)[:, None]
        state["conv.bias"] = state["conv.bias"] - 1e-5 * slope.sum((1, 2))
    for name, value in final.items():
        assert value == pytest.approx(state[name], rel=1e-3, abs=1e-6), name


def test_larger_batches_are_refused(backend: str, mixed: multiseg.Dataset, tmp_path: Path) -> None:
    model = tmp_path / "net.prototxt"
    model.write_text(NETWORK)
    for name in ("batch_size", "val_batch_size", "accumulate"):
        with pytest.raises(SettingsError, match=f"{name}=2: the images of .* differ in size.*choose {name}=1"):
            job(mixed, backend, model, **{name: 2}).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", shipped.MODELS)
def test_networks_chosen_by_name_take_any_size(backend: str, name: str) -> None:
    """Loaded for mixed sizes, each has the output, the loss and the step of the same network that is loaded for one size."""
    owner, draw, classes = registry.get(backend), np.random.default_rng(4), 3
    layout = Layout(owner.data_order, owner.channel_order)
    file = shipped.file_of(shipped.get(name), owner, classes)
    settings = {"loss": "cross_entropy", "labels": CLASSES}
    with zoo.load(backend, file, (3, 16, 16), (1, 16, 16), mixed_sizes=True, **settings) as mixed:
        # no layer's weights are zero
        start = {key: value + 0.001 for key, value in mixed.call("get_weights").items()}
        large = name == "fcn-alexnet"  # one size is enough for it; its dropout draws other numbers
        for size in ((16, 48), (32, 16))[: 1 if large else 2]:
            features = layout.features(draw.integers(0, 256, (1, 3, *size), dtype=np.uint8))
            labels = layout.labels(draw.integers(0, classes, (1, 1, *size), dtype=np.uint8))
            results = []
            with zoo.load(backend, file, (3, *size), (1, *size), **settings) as fixed:
                for worker in (mixed, fixed):
                    worker.call("set_weights", weights=start)
                    output, terms = worker.call("evaluate", features=features, labels=labels)
                    loss = worker.call("train_step", features=features, labels=labels, rate=0.0)
                    results.append((layout.output(output), terms[0][0] / terms[0][1], loss))
            (output, loss, step), (expected, expected_loss, expected_step) = results
            assert output.shape == (1, classes, *size)
            assert output == pytest.approx(expected, rel=1e-4, abs=1e-5 * float(np.abs(expected).max()))
            assert loss == pytest.approx(expected_loss, rel=1e-5)
            if not large:
                assert step == pytest.approx(expected_step, rel=1e-5)


OF_ONE_SIZE = """
class UserModel(Tower):
    @model_property
    def inference(self):
        images = tf.reshape(self.x, [-1] + list(self.input_shape))
        return slim.conv2d(images, self.nclasses or 3, 1, activation_fn=None, scope='score')

    @model_property
    def loss(self):
        return digits.classification_loss(self.inference, self.y)
"""


@pytest.mark.needs("tensorflow")
def test_a_tensorflow_file_that_reads_the_size_of_the_images(mixed: multiseg.Dataset, tmp_path: Path) -> None:
    model = tmp_path / "net.py"
    model.write_text(OF_ONE_SIZE)
    for classes in (None, 3):
        with pytest.raises(
            ModelError, match=r"line 5: .*images differ in size, so input_shape has no height and width"
        ) as caught:
            job(mixed, "tensorflow", model, classes=classes).train(tmp_path / "run", progress=False)
        assert "nclasses" not in str(caught.value)
