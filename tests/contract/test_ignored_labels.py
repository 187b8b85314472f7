"""Labels that do not count, and labels beyond a network's outputs, in training, validation and test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from multiseg import Dataset, Job
from multiseg.errors import DatasetError, MultisegError

NET = """
layer {{ name: "data" type: "Data" top: "data" exclude {{ stage: "deploy" }} }}
layer {{ name: "label" type: "Data" top: "label" exclude {{ stage: "deploy" }} }}
layer {{ name: "data" type: "Input" top: "data" include {{ stage: "deploy" }}
        input_param {{ shape {{ dim: 1 dim: 1 dim: 8 dim: 8 }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "prob" type: "Softmax" bottom: "conv" top: "prob" include {{ stage: "deploy" }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss"
        {options} exclude {{ stage: "deploy" }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "conv" bottom: "label" top: "accuracy" include {{ stage: "val" }} }}
"""
CLASSES, VOID = 3, 255


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Class indices 0 to 2, and 255 on the first row."""
    folder, draw = tmp_path_factory.mktemp("void"), np.random.default_rng(1)
    for name, most in (("input", 10), ("target", CLASSES)):
        (folder / name).mkdir()
        for number in range(6):
            pixels = draw.integers(0, most, (8, 8), dtype=np.uint8)
            if name == "target":
                pixels[0] = VOID
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return Dataset.create(folder / "dataset", input=folder / "input", target=folder / "target", val_percent=34, seed=1)


@pytest.fixture(scope="module")
def void(masks: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same images and class indices, in a dataset that states that 255 is ignored."""
    images = masks.path.parent
    return Dataset.create(
        tmp_path_factory.mktemp("classes") / "dataset", input=images / "input", target=images / "target", val_percent=34, seed=1,
        labels="classes", classes=[str(name) for name in range(CLASSES)], ignore=VOID,
    )  # fmt: skip


def job(masks: Dataset, backend: str, folder: Path, options: str = "", outputs: int = CLASSES, **more: Any) -> Job:
    (folder / "net.prototxt").write_text(NET.format(outputs=outputs, options=options))
    return Job(
        dataset=masks, backend=backend, model=folder / "net.prototxt", epochs=1, batch_size=2, val_batch_size=2,
        learning_rate=1e-4, seed=1, threads=1, metric="val_loss", **more,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["file", "job", "both", "equal"])
def test_ignored_labels_count_in_no_loss_and_no_metric(
    backend: str, masks: Dataset, void: Dataset, way: str, tmp_path: Path
) -> None:
    options = {"file": f"loss_param {{ ignore_label: {VOID} }}", "both": "loss_param { ignore_label: 7 }"}.get(way, "")
    more: dict[str, Any] = {} if way == "file" else {"ignore_index": VOID}
    if way == "equal":
        masks, more = void, {"recipe": "equal"}
    if (way, backend) == ("both", "torch"):
        options = ""
    with job(masks, backend, tmp_path, options, **more).train(tmp_path / "run", progress=False) as run:
        tested = run.test_db(masks.path / "val_db" / "features")
        features, labels = masks.val.read(range(len(masks.val)))
        output = run.predict(features).astype(np.float64)
    assert labels is not None
    counted = labels[:, 0] != VOID
    right = np.take_along_axis(output, np.where(labels == VOID, 0, labels).astype(int), 1)[:, 0]
    assert np.abs(output.sum(1) - 1).max() < 1e-5  # the tested output is the softmax
    assert tested["val_loss"] == pytest.approx(-np.log(right[counted]).mean(), rel=1e-4)
    assert run.history[-1]["val_loss"] == pytest.approx(tested["val_loss"], rel=1e-5)
    assert tested["pixel_accuracy"] == pytest.approx((output.argmax(1) == labels[:, 0])[counted].mean(), rel=1e-6)


@pytest.mark.parametrize("ignored", [VOID, 1])
def test_the_datasets_ignored_label_and_the_jobs_are_both_left_out(
    backend: str, masks: Dataset, ignored: int, tmp_path: Path
) -> None:
    """In the loss, the class weights and the metrics, in training and test; 255 is beyond the outputs, 1 is a class."""
    images = masks.path.parent
    both = Dataset.create(
        tmp_path / "dataset", input=images / "input", target=images / "target", val_percent=34, seed=1, labels="classes",
        ignore=ignored, label_map=None if ignored == VOID else {VOID: 0, 0: 0},
    )  # fmt: skip
    settings: dict[str, Any] = {"loss": "cross_entropy", "ignore_index": 2, "class_weights": "balanced"}
    with job(both, backend, tmp_path, **settings).train(tmp_path / "run", progress=False) as run:
        tested = run.test_db(both.path / "val_db" / "features")
        features, labels = both.val.read(range(len(both.val)))
        output = run.predict(features).astype(np.float64)
    assert labels is not None
    counted = ~np.isin(labels[:, 0], (ignored, 2))
    trained = np.concatenate([both.train[index][1].ravel() for index in range(len(both.train))])  # type: ignore[union-attr]
    numbers = np.bincount(trained[~np.isin(trained, (ignored, 2))], minlength=CLASSES)
    weights = np.where(numbers, numbers.sum() / (np.count_nonzero(numbers) * np.maximum(numbers, 1)), 1)
    assert run.settings["class_weights"] == pytest.approx(weights.tolist())
    right = np.where(counted, labels[:, 0], 0).astype(int)
    terms = -np.log(np.take_along_axis(output, right[:, None], 1)[:, 0]) * weights[right]
    expected = terms[counted].sum() / counted.sum()
    assert tested["val_loss"] == pytest.approx(expected, rel=1e-4)
    assert run.history[-1]["val_loss"] == pytest.approx(expected, rel=1e-4)
    accuracy = (output.argmax(1) == labels[:, 0])[counted].mean()
    assert tested["pixel_accuracy"] == run.history[-1]["pixel_accuracy"] == pytest.approx(accuracy, rel=1e-6)
    assert np.sum(tested["confusion"]) == counted.sum()


@pytest.mark.parametrize("trained", ["on labels of which 255 is ignored", "on labels that all count"])
def test_a_databases_own_ignored_label_is_left_out(
    backend: str, masks: Dataset, void: Dataset, trained: str, tmp_path: Path
) -> None:
    """A loss that ignores another label receives it as that one; a loss that ignores none is not computed."""
    images = masks.path.parent
    other = Dataset.create(
        tmp_path / "other", input=images / "input", target=images / "target", val_percent=34, seed=1, labels="classes",
        ignore=1, label_map={VOID: 0, 0: 0},
    )  # fmt: skip
    dataset = void
    if trained == "on labels that all count":
        dataset = Dataset.create(
            tmp_path / "all", input=images / "input", target=images / "target", val_percent=34, seed=1, labels="classes",
            ignore=None, label_map={VOID: 0, 0: 0},
        )  # fmt: skip
    with job(dataset, backend, tmp_path, loss="cross_entropy").train(tmp_path / "run", progress=False) as run:
        tested = run.test_db(other.path / "val_db" / "features")
        features, labels = other.val.read(range(len(other.val)))
        output = run.predict(features).astype(np.float64)
    assert labels is not None
    counted = labels[:, 0] != 1
    right = np.where(counted, labels[:, 0], 0).astype(int)
    assert np.sum(tested["confusion"]) == counted.sum() < counted.size
    assert tested["pixel_accuracy"] == pytest.approx((output.argmax(1) == labels[:, 0])[counted].mean(), rel=1e-6)
    if dataset is void:
        named = Dataset.create(
            tmp_path / "named", input=images / "input", target=images / "target", val_percent=34, seed=1, labels="classes",
            classes=["a", "b", "c"],
        )  # fmt: skip
        with (
            pytest.warns(multiseg.errors.MultisegWarning, match="has the classes a, b, c, net"),
            multiseg.Run.open(tmp_path / "run") as run,
        ):
            run.test_db(named.path)
        expected = -np.log(np.take_along_axis(output, right[:, None], 1)[:, 0][counted]).mean()
        assert tested["val_loss"] == pytest.approx(expected, rel=1e-4)
    else:
        assert tested["val_loss"] is None


@pytest.mark.parametrize(("outputs", "ignored", "value"), [(2, VOID, 2), (3, None, VOID)])
def test_a_class_beyond_the_outputs_is_named_before_training(
    backend: str, masks: Dataset, outputs: int, ignored: int | None, value: int, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError) as raised:
        job(masks, backend, tmp_path, outputs=outputs, ignore_index=ignored).train(tmp_path / "run", progress=False)
    message = str(raised.value)
    assert "train_db/labels: record 00000000" in message and f"has the class {value};" in message
    assert f"ignore_index={value}" in message and not (tmp_path / "run").exists()


def test_a_class_beyond_the_outputs_is_named_when_a_database_is_tested(
    backend: str, masks: Dataset, tmp_path: Path
) -> None:
    with job(masks, backend, tmp_path, ignore_index=VOID).train(tmp_path / "run", progress=False) as run:
        labels = tmp_path / "labels"
        labels.mkdir()
        pixels = np.repeat(np.arange(5, -3, -1).clip(0).astype(np.uint8)[:, None], 8, axis=1)
        for number in range(3):
            Image.fromarray(pixels).save(labels / f"{number}.png")
        other = multiseg.Dataset.create(tmp_path / "other", input=labels, target=labels, val_percent=0, seed=1)
        with pytest.raises(DatasetError, match=r"record 00000000.: has the class 5; the network has 3 outputs"):
            run.test_db(other.path / "train_db" / "features")
        assert run.test_db(masks.path / "val_db" / "features")["val_loss"] is not None  # the run can be used further


def test_a_network_refuses_such_labels_itself(backend: str, masks: Dataset, tmp_path: Path) -> None:
    """Also where no dataset was read before, as in the contract of a network."""
    with job(masks, backend, tmp_path, ignore_index=VOID).train(tmp_path / "run", progress=False) as run:
        features = run.layout.features(masks.val.read([0])[0])
        labels = run.layout.labels(np.full((1, 1, 8, 8), 200, np.uint8))
        with pytest.raises(MultisegError, match=r"200") as raised:
            run.worker().call("predict", features=features, labels=labels)
        assert len(str(raised.value)) < 400
        output, loss, _ = run.worker().call("predict", features=features, labels=np.zeros_like(labels))
        assert np.isfinite(loss) and np.isfinite(output).all()


def test_the_ignored_label_of_a_dataset_holds_in_warm_start_and_after_conversion(
    backend: str, void: Dataset, tmp_path: Path
) -> None:
    """The loss before training is that of the source's weights, without the labels that the dataset ignores."""
    with job(void, "caffe", tmp_path).train(tmp_path / "source", progress=False) as source:
        features, labels = void.val.read(range(len(void.val)))
        output = source.predict(features).astype(np.float64)
        extension = multiseg.backend.get(backend).formats[0]
        converted = multiseg.convert(
            source,
            multiseg.backend.get(backend).weights_format,
            tmp_path / "weights",
            with_network=tmp_path / f"own{extension}",
        )
    assert labels is not None
    counted = labels[:, 0] != VOID
    assert not counted.all()
    right = np.take_along_axis(output, np.where(labels == VOID, 0, labels).astype(int), 1)[:, 0]
    expected = -np.log(right[counted]).mean()
    for name, model, weights in (
        ("warm", tmp_path / "net.prototxt", tmp_path / "source"),
        ("converted", converted.network, converted.path),
    ):
        started = Job(
            dataset=void, backend=backend, model=model, weights=weights, solver_state=False, epochs=1, batch_size=2,
            val_batch_size=2, learning_rate=1e-9, seed=1, threads=1, metric="val_loss",
        )  # fmt: skip
        with started.train(tmp_path / name, progress=False) as run:
            assert run.history[0]["val_loss"] == pytest.approx(expected, rel=1e-4)
            assert run.test_db(void.path / "val_db" / "features")["val_loss"] == pytest.approx(expected, rel=1e-4)
