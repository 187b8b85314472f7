"""Networks as ONNX files: onnxruntime makes of them what the frameworks make, and what float64 makes of their description."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

import multiseg
from helpers import exported_layers as layers
from helpers import small_models, zoo
from helpers.exported import Array, Frameworks, network, random_weights
from helpers.lending import lend
from helpers.nightly import nightly
from multiseg import backend as registry
from multiseg import reference
from multiseg.backend import package_folder
from multiseg.cli import main
from multiseg.errors import BackendUnavailable, ModelError, SettingsError
from multiseg.exporting import onnx as onnx_export
from multiseg.exporting import source
from multiseg.model_files import weights_file
from multiseg.model_files.weights_file import NeutralWeights
from multiseg.topology import Topology
from multiseg.worker.client import Worker

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")

MODELS = package_folder("multiseg_models")
FCN = MODELS / "fcn.prototxt"
SHAPE = (1, 32, 32)
Small = Callable[[str], Path]


@pytest.fixture(scope="module")
def frameworks() -> Iterator[Frameworks]:
    found = Frameworks()
    yield found
    found.close()


@pytest.fixture(scope="module")
def small(coloured: multiseg.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """small(backend): folder of a run of a small network on images in colour, less the mean image; made once."""
    folder = tmp_path_factory.mktemp("small")

    def trained(backend: str) -> Path:
        name, text = small_models.FILES[backend]
        if not (folder / backend).exists():
            for one, three in (
                ("output: 1 ", "output: 3 "),
                ("(1, 8,", "(3, 8,"),
                ("(8, 1,", "(8, 3,"),
                ("net, 1,", "net, 3,"),
            ):
                text = text.replace(one, three)
            (folder / name).write_text(text)
            settings = {"epochs": 1, "batch_size": 2, "recipe": "equal", "subtract_mean": "image", "threads": 1}
            multiseg.Job(coloured, backend, folder / name, **settings).train(folder / backend, progress=False)
        return folder / backend

    return trained


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """PyTorch's process, which writes the files."""
    with lend("torch") as started:
        yield started


def weights_of(topology: Topology, folder: Path, order: Any = None) -> Path:
    """A file with random weights of a network."""
    path = folder / "weights.safetensors"
    weights_file.write(path, NeutralWeights(random_weights(topology), order))
    return path


def run(path: Path, images: Array) -> Array:
    """What onnxruntime makes of images."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    made: Array = session.run(None, {session.get_inputs()[0].name: images})[0]
    return made


def said(path: Path) -> dict[str, str]:
    """The file's metadata."""
    return {prop.key: prop.value for prop in onnx.load(path).metadata_props}


def axes(path: Path) -> list[str | int]:
    """Of the file's input: the names of those that vary, the sizes of the others."""
    return [dim.dim_param or dim.dim_value for dim in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]


def in_float64(topology: Topology, images: Array) -> Array:
    from helpers.evaluate import evaluate  # which needs PyTorch

    *_, (layer, made) = evaluate(topology, random_weights(topology), images, {})
    assert layer.name == topology.outputs[0]
    return made


# --- layers and networks


LAYERS = (
    "conv-same-strided", "deconv-unequal-pads", "max-pool-padded-up", "average-padded-up", "lrn-within", "thresholded",
    "crop-offsets", "resize-nearest-size",
)  # fmt: skip


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_computes_what_it_does_in_the_frameworks(
    case: str, frameworks: Frameworks, worker: Worker, tmp_path: Path
) -> None:
    topology = network(*layers.CASES[case][0])
    path = onnx_export.export(topology, tmp_path / "net.onnx", None, weights_of(topology, tmp_path), worker)
    made = layers.outputs(frameworks, topology, tmp_path)
    assert made.keys() == layers.CASES[case][1]
    layers.check_alike({**made, "onnx": run(path, layers.images(topology))})


def test_statistics_of_the_batch_in_prediction_are_those_of_each_image(worker: Worker, tmp_path: Path) -> None:
    norm = ("BatchNormalization", {"prediction_statistics": "batch", "stored": False})
    pool, tanh, (unpool, scales, _) = layers.CASES["max-unpool"][0]
    topology = network(norm, pool, tanh, (unpool, scales, ["l2", "b"]))
    path = onnx_export.export(topology, tmp_path / "net.onnx", None, weights_of(topology, tmp_path), worker)
    images = layers.images(topology)
    expected = reference.forward(topology, random_weights(topology), images).output.value
    layers.check_alike({"onnx": run(path, images)}, expected)


def test_a_network_that_needs_a_batch_for_its_statistics_is_refused(worker: Worker, tmp_path: Path) -> None:
    by_batch = ("BatchNormalization", {"prediction_statistics": "batch"})
    topology = network(("Flatten", {}), ("Gemm", {"num_output": 6}), by_batch)
    with pytest.raises(ModelError, match="cannot predict one image alone: Expected more than 1 value per channel"):
        onnx_export.export(topology, tmp_path / "net.onnx", None, weights_of(topology, tmp_path), worker)
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize("net", nightly(zoo.SHAPES, ["alexnet", "fcn8s"]))
def test_a_network_computes_what_its_framework_and_float64_do(
    net: str, frameworks: Frameworks, worker: Worker, tmp_path: Path
) -> None:
    file, (shape, _) = zoo.NETS / f"{net}.prototxt", zoo.SHAPES[net]
    topology = frameworks.describe(file, shape)
    path = onnx_export.export(file, tmp_path / "net.onnx", shape, weights_of(topology, tmp_path), worker)
    images = np.random.default_rng(4).standard_normal((3, *shape)).astype(np.float32)
    output, expected = run(path, images), in_float64(topology, images)
    framework = frameworks.predict("caffe", file, topology, random_weights(topology), images)
    # some ten layers of sums of up to 2304 float32 products, near 1 and random in sign
    for other in (expected, framework):
        assert np.abs(output - other).max() <= 1e-5 * np.abs(expected).max()
    assert axes(path) == (
        ["batch", shape[0], "height", "width"] if net in ("autoencoder", "fcn8s") else ["batch", *shape]
    )


def test_the_fcn_takes_any_batch_and_size(frameworks: Frameworks, worker: Worker, tmp_path: Path) -> None:
    topology = frameworks.describe(MODELS / "fcn.lua", SHAPE)
    path = onnx_export.export(topology, tmp_path / "net.onnx", None, weights_of(topology, tmp_path), worker)
    assert axes(path) == ["batch", 1, "height", "width"]
    draw = np.random.default_rng(1)
    for images in (draw.standard_normal((1, *SHAPE)), draw.standard_normal((2, 1, 48, 80))):
        expected = in_float64(frameworks.describe(FCN, images.shape[1:]), images)
        output = run(path, images.astype(np.float32))
        assert np.abs(output - expected).max() <= 1e-5 * np.abs(expected).max()


# --- runs, names, colours


def test_a_run_is_written_as_it_was_trained(
    backend: str, small: Small, worker: Worker, coloured: multiseg.Dataset, tmp_path: Path
) -> None:
    with multiseg.Run.open(small(backend)) as trained:
        path = onnx_export.export(trained, tmp_path / "net.onnx", None, None, worker)
        metadata = said(path)
        mean = np.array(json.loads(metadata["multiseg.mean"]), np.float32)
        order = registry.get(backend).channel_order
        assert (metadata["multiseg.channel_order"], metadata["multiseg.epoch"]) == (order, "1")
        assert mean.shape == (3, 8, 8)
        features = np.stack([coloured.val[index][0] for index in range(3)])  # RGB
        fed = features if order == "RGB" else features[:, ::-1]
        output, expected = run(path, fed - mean), trained.predict(features)
        output = output if order == "RGB" else output[:, ::-1]
        assert np.abs(output - expected).max() <= 1e-5 * np.abs(expected).max()


def test_weights_of_a_run_under_other_names_are_matched(small: Small, tmp_path: Path) -> None:
    file, out = tmp_path / "named.prototxt", tmp_path / "net.onnx"
    text = (small("caffe") / "model" / "small.prototxt").read_text()
    file.write_text(text.replace('"conv1"', '"first/3x3"').replace('"conv2"', '"last"'))
    words = ["export", file, "--to", "onnx", "--weights", small("torch"), "--input-shape", "3,8,8", "-o", out]
    result = CliRunner().invoke(main, list(map(str, words)))
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    assert result.stderr == (
        "note: 3 of 4 layers compared with float64; not compared: drop1, which keeps the tensor of its input\n"
    )
    assert {each.name for each in tmp_path.iterdir()} == {"net.onnx", "named.prototxt"}
    images = np.random.default_rng(6).normal(size=(1, 3, 8, 8)).astype(np.float32)
    with multiseg.Run.open(small("torch")) as opened:
        expected = opened.worker().call("predict", features=images, labels=None)[0]
    assert np.abs(run(out, images) - expected).max() <= 1e-5 * np.abs(expected).max()
    assert said(out)["multiseg.channel_order"] == "RGB"


@pytest.mark.parametrize(("order", "found"), [(None, "BGR"), ("RGB", "RGB")])
def test_the_order_of_the_colours_is_the_weights_own(
    order: Any, found: str, frameworks: Frameworks, worker: Worker, tmp_path: Path
) -> None:
    file, (shape, _) = zoo.NETS / "inception.prototxt", zoo.SHAPES["inception"]
    topology = frameworks.describe(file, shape)
    assert any("/" in name for name in topology.weights)
    # under the names that the file exported for PyTorch has
    text = source.source(registry.get("torch"), topology, False)
    (tmp_path / "net.py").write_text(text)
    again = frameworks.describe(tmp_path / "net.py", shape)
    own = dict(zip(again.weights, random_weights(topology).values(), strict=True))
    weights_file.write(tmp_path / "w.safetensors", NeutralWeights(own, order))
    path = onnx_export.export(file, tmp_path / "net.onnx", shape, tmp_path / "w.safetensors", worker)
    metadata = said(path)
    assert metadata["multiseg.channel_order"] == found
    assert metadata["multiseg.source"] == "inception.prototxt"
    assert "/tmp" not in path.read_bytes().decode("latin-1")  # nothing of this machine


# --- what is refused


def test_what_is_wrong_is_told_in_one_line_and_nothing_is_written(
    frameworks: Frameworks, worker: Worker, tmp_path: Path
) -> None:
    topology = frameworks.describe(FCN, SHAPE)
    out, folder = tmp_path / "out", tmp_path / "given"
    out.mkdir()
    folder.mkdir()

    def refused(given: Any, name: str = "net.onnx", what: Any = FCN) -> str:
        with pytest.raises(ModelError) as error:
            onnx_export.export(what, out / name, SHAPE, given, worker)
        assert not list(out.iterdir())
        assert "\n" not in str(error.value)
        return str(error.value)

    def given(weights: dict[str, Array]) -> Path:
        weights_file.write(folder / "w.safetensors", NeutralWeights(weights))
        return folder / "w.safetensors"

    weights = random_weights(topology)
    assert "must end in .onnx" in refused(given(weights), "net.pt")
    assert "fcn.prototxt: contains no weights" in refused(None)
    less = {name: value for name, value in weights.items() if name != "conv2.bias"}
    assert "fcn.prototxt: no weights are given for 'conv2.bias'" in refused(given(less))
    assert "weights of 'conv1.bias' are (3,)" in refused(given({**weights, "conv1.bias": np.zeros(3, np.float32)}))
    assert "is not a weights file of a known kind" in refused(FCN.with_name("__init__.py"))


def test_a_layer_that_pytorch_has_no_words_for_is_refused_by_name(worker: Worker, tmp_path: Path) -> None:
    topology = network(("Resize", {"mode": "linear", "scales": [2.0, 2.0], "coordinates": "asymmetric"}))
    with pytest.raises(
        ModelError,
        match=r"ONNX, written by way of PyTorch, cannot express it exactly; layer 'l0' \(Resize\): has linear resizing",
    ):
        onnx_export.export(topology, tmp_path / "net.onnx", None, weights_of(topology, tmp_path), worker)
    assert not (tmp_path / "net.onnx").exists()


def test_what_onnxruntime_makes_otherwise_is_not_written(
    frameworks: Frameworks, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = network(layers.conv())
    monkeypatch.setattr(onnx_export, "TOLERANCE", 1e-12)
    with pytest.raises(ModelError, match=r"some\.net: onnxruntime's output differs from PyTorch's by .*e-0\d"):
        onnx_export.export(topology, tmp_path / "net.onnx", None, weights_of(topology, tmp_path), worker)
    assert not (tmp_path / "net.onnx").exists()


def test_a_run_of_another_network_is_refused(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="are not the same network"):
        multiseg.export(FCN, "onnx", tmp_path / "net.onnx", SHAPE, weights=small("caffe"))
    assert not list(tmp_path.iterdir())


def test_without_its_packages_the_mend_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')")
    monkeypatch.setenv("PYTHONPATH", str(absent))
    weights = weights_of(multiseg.describe(FCN, SHAPE), tmp_path)
    with pytest.raises(
        SettingsError, match=r"No module named onnxruntime\); install them with: pip install 'multiseg\[onnx\]'"
    ):
        multiseg.export(FCN, "onnx", tmp_path / "net.onnx", SHAPE, weights=weights)
    assert not (tmp_path / "net.onnx").exists()


def test_a_source_takes_no_weights_and_a_kind_must_be_known(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="a network file for PyTorch contains no weights"):
        multiseg.export(FCN, "torch", tmp_path / "net.py", SHAPE, weights=tmp_path / "w.pt")
    with pytest.raises(BackendUnavailable, match="no backend is called 'onyx'"):
        multiseg.export(FCN, "onyx", tmp_path / "net.onnx", SHAPE)


def test_a_run_is_written_as_another_frameworks_source(small: Small, tmp_path: Path) -> None:
    multiseg.export(small("caffe"), "torch", tmp_path / "net.py")
    assert "small.prototxt (Caffe prototxt) in PyTorch, for images of 3x8x8" in (tmp_path / "net.py").read_text()
