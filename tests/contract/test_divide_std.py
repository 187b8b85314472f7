"""Division of inputs by a standard deviation: in training and every test, in exports, parity and resumed runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

from multiseg import Dataset, Job, Run, check_parity
from multiseg import backend as registry
from multiseg.cli import main
from multiseg.errors import MultisegError, RunError
from multiseg.exporting import files

NET = """
layer { name: "data" type: "Data" top: "data" include { phase: TRAIN } }
layer { name: "label" type: "Data" top: "label" include { phase: TRAIN } }
layer { name: "data" type: "Data" top: "data" include { phase: TEST stage: "val" } }
layer { name: "label" type: "Data" top: "label" include { phase: TEST stage: "val" } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 1 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "conv" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Six colour images of 8x8 pixels, whose channels have different spreads; four of them for training."""
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    for name in ("input", "target"):
        (folder / name).mkdir()
    for number in range(6):
        pixels = draw.integers(0, 256, (8, 8, 3)) // np.array([1, 2, 5]) + 10 * number
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / "input" / f"{number}.png")
        mask = draw.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(mask).save(folder / "target" / f"{number}.png")
    return Dataset.create(folder / "dataset", input=folder / "input", target=folder / "target", val_percent=34, seed=1)


def job(images: Dataset, backend: str, folder: Path, **more: Any) -> Job:
    (folder / "net.prototxt").write_text(NET)
    settings: dict[str, Any] = {
        "dataset": images, "backend": backend, "model": folder / "net.prototxt", "epochs": 2, "batch_size": 2,
        "val_batch_size": 2, "learning_rate": 1e-4, "seed": 1, "threads": 1, "mean": [100, 110, 120],
    }  # fmt: skip
    return Job(**settings | more)


def deviation(images: Dataset) -> Any:
    """Return NumPy's standard deviation of the training images in float64, as B, G, R."""
    return images.train.read(range(4))[0].astype(np.float64).std(axis=(0, 2, 3))[::-1]


@pytest.mark.parametrize("requested", [[2.0, 4.0, 8.0], [5], "dataset"])
def test_training_and_every_test_divide(backend: str, images: Dataset, requested: Any, tmp_path: Path) -> None:
    expected_std = deviation(images) if requested == "dataset" else np.broadcast_to(requested, 3)
    with job(images, backend, tmp_path, divide_std=requested).train(tmp_path / "run", progress=False) as run:
        stored = json.loads((tmp_path / "run/job.json").read_text())
        assert stored["std"] == pytest.approx(expected_std[::-1], rel=1e-6)
        assert stored["settings"]["divide_std"] == requested
        weights = {name.rpartition(".")[2]: value for name, value in run.worker().call("get_weights").items()}
        features, labels = images.val.read(range(2))
        scaled = (features.astype(np.float64)[:, ::-1] - np.reshape([100, 110, 120], (3, 1, 1))) / np.reshape(
            expected_std, (3, 1, 1)
        )
        kernel = weights["weight"].astype(np.float64)[:, :, 0, 0]
        kernel = kernel if run.layout.channel_order == "BGR" else kernel[:, ::-1]
        outputs = np.einsum("oi,nihw->nohw", kernel, scaled) + weights["bias"][0]
        assert run.predict(features) == pytest.approx(outputs, rel=1e-4, abs=1e-3)
        Image.fromarray(np.moveaxis(features[0], 0, 2)).save(tmp_path / "image.png")
        assert run.test_one(tmp_path / "image.png").array == pytest.approx(outputs[0], rel=1e-4, abs=1e-3)
        l1 = np.abs(outputs - labels).mean()
        assert run.test_db(images.path / "val_db/features")["l1"] == pytest.approx(l1, rel=1e-4)
        assert run.history[-1]["l1"] == pytest.approx(l1, rel=1e-4)  # the validation of the training


def test_training_equals_that_of_images_divided_beforehand(backend: str, images: Dataset, tmp_path: Path) -> None:
    """Division by 2 in a float dataset and by ``divide_std`` are the same numbers, so the weights are the same bits."""
    folder = tmp_path / "arrays"
    for name in ("input", "target", "val_input", "val_target"):
        (folder / name).mkdir(parents=True)
    for index, (feature, label) in enumerate(map(images.train.__getitem__, range(4))):
        np.save(folder / "input" / f"{index}.npy", (feature.astype(np.float32) - 64) / 2)
        assert label is not None
        np.save(folder / "target" / f"{index}.npy", label)
    for name in ("input", "target"):
        shutil.copy(folder / name / "0.npy", folder / f"val_{name}" / "0.npy")
    halved = Dataset.create(
        tmp_path / "halved", input=folder / "input", target=folder / "target", val_input=folder / "val_input",
        val_target=folder / "val_target",
    )  # fmt: skip
    weights = []
    for name, dataset, more in (
        ("divided", images, {"mean": [64], "divide_std": [2]}),
        ("beforehand", halved, {"mean": None, "subtract_mean": "none"}),
    ):
        with job(dataset, backend, tmp_path, **more).train(tmp_path / name, progress=False) as run:
            weights.append(run.worker().call("get_weights"))
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_exported_files_name_the_deviation(backend: str, images: Dataset, tmp_path: Path) -> None:
    with job(images, "caffe", tmp_path, divide_std=[2.0, 4.0, 8.5]).train(tmp_path / "run", progress=False) as run:
        exported = files.export(run, backend, tmp_path / f"exported{registry.get(backend).formats[0]}")
        onnx_file = files.export(run, "onnx", tmp_path / "run.onnx")
    (note,) = [note for note in files.exported_notes(exported) if "standard deviation" in note]
    assert "2,4,8.5, colours as B,G,R" in note and "--divide-std 2,4,8.5" in note
    metadata = onnxruntime.InferenceSession(str(onnx_file)).get_modelmeta().custom_metadata_map
    assert metadata["multiseg.channel_order"] == "BGR"
    assert json.loads(metadata["multiseg.std"]) == [[[2.0]], [[4.0]], [[8.5]]]


def test_parity_divides(backend: str, images: Dataset, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    parity = check_parity(
        images,
        [backend],
        tmp_path / "net.prototxt",
        steps=2,
        loss="l2",
        learning_rate=0.1,
        divide_std=[60.0, 50.0, 40.0],
    )
    assert parity.ok and parity.settings["divide_std"] == [60.0, 50.0, 40.0]


def test_a_run_is_resumed_with_the_same_deviation_only(images: Dataset, tmp_path: Path, backend: str) -> None:
    with job(images, backend, tmp_path, divide_std="dataset").train(tmp_path / "run", progress=False):
        pass
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    (tmp_path / "again/summary.json").unlink()  # as if it had not finished
    for other in (None, [3.0]):
        with pytest.raises(RunError, match="was trained with divide_std='dataset', not"):
            job(images, backend, tmp_path, divide_std=other).train(tmp_path / "again", resume=True, progress=False)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("images", "divide_std='images': must be 'dataset', or a list of numbers above 0"),
        ([1.0, 0.0, 2.0], r"divide_std=\[1.0, 0.0, 2.0\]: must be 'dataset', or a list of numbers above 0"),
        ([1.0, 2.0], r"divide_std=\[1.0, 2.0\]: has 2 numbers, the images have 3 channels"),
    ],
)
def test_bad_deviations_are_refused(images: Dataset, tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(MultisegError, match=words):
        job(images, "torch", tmp_path, divide_std=value).train(tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_command_line_takes_numbers_or_dataset(images: Dataset, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    for text, words in (("2,4", "--divide-std 2.0,4.0: has 2 numbers"), ("a,b", "'a,b' is not a list of numbers")):
        result = CliRunner().invoke(
            main,
            ["train", "--dataset", str(images.path), "--run", str(tmp_path / "run"), "--backend", "torch", "--model",
             str(tmp_path / "net.prototxt"), "--divide-std", text],
        )  # fmt: skip
        assert result.exit_code == 2 and words in result.output
    with Run.open(
        job(images, "torch", tmp_path, divide_std="dataset", epochs=1).train(tmp_path / "run", progress=False).path
    ) as run:
        assert run.layout.std == pytest.approx(deviation(images)[::-1], rel=1e-6)
