"""Means of one's own, and of a prototxt: subtracted in training and in every test, kept with the run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from multiseg import Dataset, Job, Run
from multiseg import backend as registry
from multiseg.errors import MultisegError
from multiseg.exporting import files
from multiseg.model_files.reading import mean_of_file

NET = """
layer {{ name: "data" type: "Data" top: "data" {train} include {{ phase: TRAIN }} }}
layer {{ name: "label" type: "Data" top: "label" include {{ phase: TRAIN }} }}
layer {{ name: "data" type: "Data" top: "data" {val} include {{ phase: TEST stage: "val" }} }}
layer {{ name: "label" type: "Data" top: "label" include {{ phase: TEST stage: "val" }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 1 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "conv" bottom: "label" top: "loss" exclude {{ stage: "deploy" }} }}
"""
MEAN = "mean_value: 104 mean_value: 117 mean_value: 123"
BGR = np.array([104.0, 117.0, 123.0])


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(1)
    for name, shape in (("input", (8, 8, 3)), ("target", (8, 8))):
        (folder / name).mkdir()
        for number in range(4):
            Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(folder / name / f"{number}.png")
    return Dataset.create(folder / "dataset", input=folder / "input", target=folder / "target", val_percent=50, seed=1)


def train(images: Dataset, backend: str, folder: Path, train: str = "", val: str = "", **more: Any) -> Run:
    fields = {key: f"transform_param {{ {value} }}" if value else "" for key, value in (("train", train), ("val", val))}
    (folder / "net.prototxt").write_text(NET.format(**fields))
    return Job(
        dataset=images, backend=backend, model=folder / "net.prototxt", epochs=1, batch_size=2, val_batch_size=2,
        learning_rate=1e-9, seed=1, threads=1, **more,
    ).train(folder / "run", progress=False)  # fmt: skip


def expected(run: Run, images: Dataset, mean: Any, scale: float) -> np.ndarray[Any, Any]:
    """Return the outputs for the validation images in float64: the convolution of (x - mean) scale."""
    weights = {name.rpartition(".")[2]: value for name, value in run.worker().call("get_weights").items()}
    pixels = images.val.read(range(2))[0].astype(np.float64)[:, ::-1]  # as B, G, R
    kernel = weights["weight"].astype(np.float64)[:, :, 0, 0]
    kernel = kernel if run.layout.channel_order == "BGR" else kernel[:, ::-1]
    return np.einsum("oi,nihw->nohw", kernel, (pixels - np.reshape(mean, (3, 1, 1))) * scale) + weights["bias"][0]


@pytest.mark.parametrize(
    ("in_training", "in_validation", "more", "mean", "scale"),
    [
        (MEAN, MEAN, {}, BGR, 1.0),
        (f"{MEAN} scale: 0.0078125", "", {}, BGR, 0.0078125),
        ("mean_value: 100", "", {}, [100.0] * 3, 1.0),
        (MEAN, "", {"mean": [1, 2, 3]}, [1.0, 2.0, 3.0], 1.0),
        ("", "", {"mean": [7]}, [7.0] * 3, 1.0),
        (MEAN, MEAN, {"subtract_mean": "none"}, [0.0] * 3, 1.0),
        ("scale: 0.5", "", {"subtract_mean": "none"}, [0.0] * 3, 0.5),
    ],
)
def test_a_mean_and_a_scale_apply_to_training_and_every_test(
    backend: str,
    images: Dataset,
    in_training: str,
    in_validation: str,
    more: Any,
    mean: Any,
    scale: float,
    tmp_path: Path,
) -> None:
    with train(images, backend, tmp_path, in_training, in_validation, **more) as run:
        features, labels = images.val.read(range(2))
        outputs = expected(run, images, mean, scale)
        assert run.predict(features) == pytest.approx(outputs, rel=1e-4, abs=1e-3)
        Image.fromarray(np.moveaxis(features[0], 0, 2)).save(tmp_path / "image.png")
        assert run.test_one(tmp_path / "image.png").array == pytest.approx(outputs[0], rel=1e-4, abs=1e-3)
        assert run.test_db(images.path / "val_db" / "features")["l1"] == pytest.approx(
            np.abs(outputs - labels).mean(), rel=1e-4
        )


@pytest.mark.parametrize(
    ("in_training", "in_validation", "more", "words"),
    [
        ("scale: 0.5", "scale: 0.25", {}, "scale: 0.25 } differs from that of training, 0.5"),
        ("", "scale: 0.25", {}, "scale: 0.25 } differs from that of training, none"),
        (MEAN, "mean_value: 1", {}, "mean_value: 1 } differs from that of training, 104, 117, 123"),
        ("", "", {"mean": [1, 2]}, r"mean=\[1.0, 2.0\]: has 2 numbers, the images have 3 channels"),
        ("", "", {"mean": [1], "subtract_mean": "pixel"}, "mean and subtract_mean: specify one of them"),
    ],
)
def test_what_contradicts_itself_is_refused(
    backend: str, images: Dataset, in_training: str, in_validation: str, more: Any, words: str, tmp_path: Path
) -> None:
    with pytest.raises(MultisegError, match=words):
        train(images, backend, tmp_path, in_training, in_validation, **more)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("more", [{}, {"subtract_mean": "pixel"}, {"subtract_mean": "none"}])
def test_the_mean_is_kept_or_named_in_exported_files(backend: str, images: Dataset, more: Any, tmp_path: Path) -> None:
    suffix = registry.get(backend).formats[0]
    with train(images, "caffe", tmp_path, f"{MEAN} scale: 0.5", **more) as run:
        of_run = files.export(run, backend, tmp_path / f"of_run{suffix}")
        of_file = files.export(tmp_path / "net.prototxt", backend, tmp_path / f"of_file{suffix}", (3, 8, 8))
        onnx_file = files.export(run, "onnx", tmp_path / "run.onnx")
        pixels = images.train.read(range(len(images.train)))[0].astype(np.float64)
        dataset_mean = pixels.mean((0, 2, 3))[::-1]
    session = onnxruntime.InferenceSession(str(onnx_file))
    stated = session.get_modelmeta().custom_metadata_map.get("multiseg.mean")
    expected_mean = BGR if not more else dataset_mean if more["subtract_mean"] == "pixel" else None
    tolerance = 0.5 if more else 1e-6  # a dataset's mean image has rounded pixels, as in DIGITS
    if expected_mean is None:
        assert stated is None
    else:
        assert np.ravel(json.loads(str(stated))) == pytest.approx(expected_mean, abs=tolerance)
    for path, mean in ((of_file, BGR), (of_run, expected_mean)):
        notes = files.exported_notes(path)
        if mean is None:
            assert not [note for note in notes if "mean" in note.split(" loss ")[0]]
        elif backend == "caffe" and mean is BGR:
            assert mean_of_file(path) == [104, 117, 123] and not notes
        else:
            (note,) = notes
            (values,) = re.findall(r"([\d.]+,[\d.]+,[\d.]+), colours as B,G,R", note)
            assert np.array(values.split(","), float) == pytest.approx(mean, abs=tolerance)
