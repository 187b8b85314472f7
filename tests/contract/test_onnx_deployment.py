"""ONNX files with preprocessing and class indices in the graph: an image goes in as it is read, classes come out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image

import multiseg
from multiseg.cli import main
from multiseg.errors import ModelError, SettingsError
from multiseg.model_files import weights_file
from multiseg.model_files.weights_file import NeutralWeights

NETWORK = """
layer { name: "data" type: "Data" top: "data" exclude { stage: "deploy" } data_param { batch_size: 2 } }
layer { name: "label" type: "Data" top: "label" exclude { stage: "deploy" } data_param { batch_size: 2 } }
layer { name: "data" type: "Input" top: "data" include { stage: "deploy" }
        input_param { shape { dim: 1 dim: 3 dim: 10 dim: 12 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    folder, draw = tmp_path_factory.mktemp("classes"), np.random.default_rng(1)
    for name, most, shape in (("input", 256, (10, 12, 3)), ("target", 4, (10, 12))):
        (folder / name).mkdir()
        for number in range(6):
            values = draw.integers(0, most, shape, dtype=np.uint8)
            if name == "input":
                values = values // np.array([1, 2, 4], np.uint8)  # so that the means of the colours differ
            Image.fromarray(values).save(folder / name / f"{number}.png")
    return multiseg.Dataset.create(
        folder / "dataset", input=folder / "input", target=folder / "target", val_percent=34, seed=1,
        labels="classes", classes=["a", "b", "c", "d"], ignore=None,
    )  # fmt: skip


@pytest.mark.needs("torch")  # writes the ONNX files
def test_the_file_computes_classes_from_the_image(backend: str, dataset: multiseg.Dataset, tmp_path: Path) -> None:
    # blobs with the names of the new input and output
    text = NETWORK.replace('top: "conv"', 'top: "classes"').replace('bottom: "conv"', 'bottom: "classes"')
    text = text.replace('top: "data" include', 'top: "image" include').replace(
        '"Convolution" bottom: "data"', '"Convolution" bottom: "image"'
    )
    text = text.replace('top: "data" exclude', 'top: "image" exclude').replace('name: "label"', 'name: "label"')
    (tmp_path / "net.prototxt").write_text(text)
    job = multiseg.Job(
        dataset=dataset, backend=backend, model=tmp_path / "net.prototxt", epochs=1, batch_size=2, learning_rate=1e-4, seed=1,
        threads=1, subtract_mean="pixel", divide_std=[60.0, 30.0, 15.0], metric="val_loss",
    )  # fmt: skip
    images = np.random.default_rng(2).integers(0, 256, (3, 3, 10, 12), dtype=np.uint8)  # R, G, B
    with job.train(tmp_path / "run", progress=False) as run:
        output, _, _ = run.worker().call("predict", features=run.layout.features(images), labels=None)
        scores = run.layout.activation(output)
        file = multiseg.export(run, "onnx", tmp_path / "net.onnx", with_preprocessing=True, with_argmax=True)
        plain = multiseg.export(run, "onnx", tmp_path / "scores.onnx", with_preprocessing=True)
    session = onnxruntime.InferenceSession(file)
    (given,), (returned,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type) == ("image", "tensor(uint8)")
    assert (returned.name, returned.type) == ("classes", "tensor(int64)")
    (classes,) = session.run(None, {"image": images})
    assert classes.shape == (3, 10, 12)
    top = np.sort(scores, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-3 * np.abs(scores).max()
    assert clear.mean() > 0.9
    assert np.array_equal(classes[clear], scores.argmax(1)[clear])
    (computed,) = onnxruntime.InferenceSession(plain).run(None, {"image": images})
    assert computed == pytest.approx(scores, abs=float(1e-4 * np.abs(scores).max()))
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["multiseg.channel_order"] == "RGB"
    assert not {"multiseg.mean", "multiseg.std"} & set(metadata)
    result = CliRunner().invoke(
        main, ["export", str(tmp_path / "run"), "--to", "onnx", "--with-argmax", "-o", str(tmp_path / "cli.onnx")]
    )
    assert result.exit_code == 0, result.output
    (given,) = onnxruntime.InferenceSession(tmp_path / "cli.onnx").get_inputs()
    assert given.type == "tensor(float)"


def test_the_options_are_for_onnx_only(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NETWORK)
    with pytest.raises(SettingsError, match=r"with_argmax=True: is for ONNX files only, to='onnx'"):
        multiseg.export(tmp_path / "net.prototxt", "torch", tmp_path / "net.py", with_argmax=True)


@pytest.mark.needs("torch")
def test_one_channel_scores_no_classes(tmp_path: Path) -> None:
    text = NETWORK.replace("num_output: 4", "num_output: 1")
    (tmp_path / "net.prototxt").write_text(text)
    weights = {"conv.weight": np.ones((1, 3, 3, 3), np.float32), "conv.bias": np.zeros(1, np.float32)}
    weights_file.write(tmp_path / "w.safetensors", NeutralWeights(weights, "RGB"))
    with pytest.raises(ModelError, match="has one channel, which scores no classes"):
        multiseg.export(
            tmp_path / "net.prototxt",
            "onnx",
            tmp_path / "net.onnx",
            weights=tmp_path / "w.safetensors",
            with_argmax=True,
        )
    assert not (tmp_path / "net.onnx").exists()
