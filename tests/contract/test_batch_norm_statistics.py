"""Which statistics batch normalisation uses, in training and in prediction: kept, described, compared, and the same anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from helpers.exported import Frameworks, network, random_weights
from multiseg import backend as registry
from multiseg.errors import ModelError
from multiseg.exporting import files
from multiseg.layout import Layout

USES: dict[str, dict[str, str]] = {
    "usual": {},
    "stored": {"training_statistics": "stored"},
    "batch": {"prediction_statistics": "batch"},
}


@pytest.fixture(scope="module")
def frameworks() -> Iterator[Frameworks]:
    workers = Frameworks()
    yield workers
    workers.close()


def written(backend: str, use: str, folder: Path) -> Path:
    """A convolution and a batch normalisation that uses statistics in this way, as a file of the backend."""
    topology = network(
        ("Conv", {"num_output": 3, "kernel_shape": [1, 1]}), ("BatchNormalization", USES[use]), shape=(3, 8, 8)
    )
    return files.export(topology, backend, folder / f"{use}{registry.get(backend).formats[0]}")


def weights_of(run: multiseg.Run) -> dict[str, Any]:
    """The run's weights in float64; Caffe has the factors of a batch normalisation in a layer of their own."""
    weights = run.worker().call("get_weights")
    return {name.replace("_scale.", "."): value.astype(np.float64) for name, value in weights.items()}


def expected(weights: dict[str, Any], image: Any, by_image: bool) -> Any:
    """The network of :func:`written` for an image (H, W, C), RGB or BGR as the network takes it."""
    x = image.transpose(2, 0, 1) * weights["first.weight"][:, None, None]
    x = np.einsum("oc,chw->ohw", weights["l0.weight"][:, :, 0, 0], x) + weights["l0.bias"][:, None, None]
    mean, variance = weights["l1.running_mean"], weights["l1.running_var"]
    if by_image:
        mean, variance = x.mean((1, 2)), x.var((1, 2))
    x = (x - mean[:, None, None]) / np.sqrt(variance + 1e-5)[:, None, None]
    return x * weights["l1.weight"][:, None, None] + weights["l1.bias"][:, None, None]


@pytest.mark.parametrize("use", USES)
def test_training_and_prediction_use_the_specified_statistics(
    use: str, backend: str, coloured: multiseg.Dataset, tmp_path: Path
) -> None:
    first = multiseg.Job(
        dataset=coloured, backend=backend, model=written(backend, "usual", tmp_path), epochs=1, seed=1, batch_size=2,
        subtract_mean="none", learning_rate=1e-6,
    ).train(tmp_path / "first", progress=False)  # fmt: skip
    first.close()
    run = multiseg.Job(
        dataset=coloured, backend=backend, model=written(backend, use, tmp_path), epochs=1, seed=2, batch_size=2,
        subtract_mean="none", learning_rate=1e-6, weights=tmp_path / "first", solver_state=False,
    ).train(tmp_path / "run", progress=False)  # fmt: skip
    with first, run:
        before, after = weights_of(first), weights_of(run)
        moved = max(np.abs(after[name] - before[name]).max() for name in after if "running" in name)
        assert (moved == 0) == (use == "stored")

        draw, paths, images = np.random.default_rng(1), [], []
        for index in range(4):
            images.append(draw.integers(0, 60 * (index + 1), (8, 8, 3)).astype(np.uint8))
            paths.append(tmp_path / f"{index}.png")
            Image.fromarray(images[-1]).save(paths[-1])
        outputs = [output.array for output in run.test_list(paths)]
        bgr = registry.get(backend).channel_order == "BGR"
        for path, image, output in zip(paths, images, outputs, strict=True):
            wanted = expected(after, image[..., ::-1] if bgr else image, use == "batch")
            np.testing.assert_allclose(output, wanted[::-1] if bgr else wanted, rtol=2e-4, atol=2e-3)
            np.testing.assert_allclose(run.test_one(path).array, output, rtol=1e-5, atol=1e-4)
        result = run.test_db(coloured.path / "val_db" / "features")
        assert result["val_loss"] == pytest.approx(run.history[-1]["val_loss"], rel=1e-4)


@pytest.mark.needs("caffe", "tensorflow", "torch")
def test_other_statistics_are_another_network(frameworks: Frameworks, tmp_path: Path) -> None:
    described = {
        (name, use): frameworks.describe(written(name, use, tmp_path), (3, 8, 8))
        for name in ("caffe", "tensorflow", "torch")
        for use in USES
    }
    for (name, use), one in described.items():
        for (other_name, other_use), other in described.items():
            difference = one.diff(other)
            assert bool(difference) == (use != other_use), (name, other_name, difference)
            if {use, other_use} == {"usual", "stored"}:
                assert "statistics in training" in str(difference.first)
            if {use, other_use} == {"usual", "batch"}:
                assert "statistics in prediction" in str(difference.first)


PROTOTXT = """
layer {{ name: "data" type: "Data" top: "data" include {{ stage: "train" }} }}
layer {{ name: "label" type: "Data" top: "label" include {{ stage: "train" }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {{ num_output: 3 kernel_size: 1 }} }}
{norms}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "norm" bottom: "label" top: "loss" exclude {{ stage: "deploy" }} }}
"""
NORM = 'layer {{ name: "{}" type: "BatchNorm" bottom: "conv" top: "norm" {} batch_norm_param {{ {} }} }}'
TRAIN, TEST = "include { phase: TRAIN }", "include { phase: TEST }"
STATES = {
    "unset": ([("norm", "", "")], ("batch", "stored")),
    "true": ([("norm", "", "use_global_stats: true")], ("stored", "stored")),
    "false": ([("norm", "", "use_global_stats: false")], ("batch", "batch")),
    "by phase": ([("norm", TRAIN, "use_global_stats: false"), ("norm", TEST, "use_global_stats: true")], ("batch", "stored")),
    "two names": ([("a", TRAIN, "use_global_stats: true"), ("b", TEST, "")], ("stored", "stored")),
    "reversed": ([("norm", TRAIN, "use_global_stats: true"), ("norm", TEST, "use_global_stats: false")], ("stored", "batch")),
}  # fmt: skip


@pytest.mark.needs("caffe")
@pytest.mark.parametrize("case", STATES)
def test_a_prototxts_statistics_are_those_of_each_state(case: str, frameworks: Frameworks, tmp_path: Path) -> None:
    norms, used = STATES[case]
    path = tmp_path / "net.prototxt"
    path.write_text(PROTOTXT.format(norms="\n".join(NORM.format(*norm) for norm in norms)))
    topology = multiseg.describe(path, (3, 8, 8))
    (norm,) = [layer for layer in topology.layers if layer.type == "BatchNormalization"]
    parameters = {"training_statistics": "batch", "prediction_statistics": "stored", **norm.parameters}
    assert (parameters["training_statistics"], parameters["prediction_statistics"]) == used
    for name in ("torch", "tensorflow"):
        out = tmp_path / f"net_{name}.py"
        if used == ("stored", "batch"):
            with pytest.raises(ModelError, match=f"layer '{norm.name}'.*stored statistics in training and the batch's"):
                files.export(topology, name, out)
        else:
            files.export(topology, name, out)
            assert not frameworks.describe(out, (3, 8, 8)).diff(topology)


TORCH = """
import torch
from torch import nn
from torch.nn import functional as F
class Norm(nn.BatchNorm2d):
    {}
def network(params):
    return nn.Sequential(nn.Conv2d(3, 3, 1), {})
"""
FROZEN = "def train(self, mode=True): return super().train(False)"
BY_HAND = (
    "def forward(self, x): return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, {}, 0.1)"
)
MODULES = {
    "usual": ("pass", "nn.BatchNorm2d(3)", ("batch", "stored")),
    "set to evaluation once": ("pass", "nn.BatchNorm2d(3).eval()", ("batch", "stored")),
    "frozen": (FROZEN, "Norm(3)", ("stored", "stored")),
    "frozen around": (FROZEN, "Norm(3), nn.ReLU(), nn.BatchNorm2d(3)", ("stored", "stored")),
    "function": (BY_HAND.format("False"), "Norm(3)", ("stored", "stored")),
    "function by batch": (BY_HAND.format("True"), "Norm(3)", ("batch", "batch")),
    "function by mode": (BY_HAND.format("self.training"), "Norm(3)", ("batch", "stored")),
    "no statistics": ("pass", "nn.BatchNorm2d(3, track_running_stats=False)", ("batch", "batch")),
}


@pytest.mark.needs("torch")
@pytest.mark.parametrize("case", MODULES)
def test_a_modules_statistics_are_those_that_it_uses_when_it_runs(
    case: str, frameworks: Frameworks, tmp_path: Path
) -> None:
    body, modules, used = MODULES[case]
    path = tmp_path / "net.py"
    path.write_text(TORCH.format(body, modules))
    topology = frameworks.describe(path, (3, 8, 8))
    norms = [layer for layer in topology.layers if layer.type == "BatchNormalization"]
    parameters = {"training_statistics": "batch", "prediction_statistics": "stored", **norms[0].parameters}
    assert (parameters["training_statistics"], parameters["prediction_statistics"]) == used
    assert all("training_statistics" not in norm.parameters for norm in norms[1:])


@pytest.mark.needs("torch")
def test_the_momentum_of_the_statistics_is_compared(frameworks: Frameworks, tmp_path: Path) -> None:
    described = {}
    for momentum in ("0.1", "0.01", "None"):
        path = tmp_path / f"net_{momentum}.py"
        path.write_text(TORCH.format("pass", f"nn.BatchNorm2d(3, momentum={momentum})"))
        described[momentum] = frameworks.describe(path, (3, 8, 8))
    assert "momentum by default in net_0.1.py, 0.01 in net_0.01.py" in str(described["0.1"].diff(described["0.01"]))
    assert "0.01 in net_0.01.py, cumulative in net_None.py" in str(described["0.01"].diff(described["None"]))
    assert not described["0.01"].diff(described["0.01"])
    with pytest.raises(ModelError, match="average of all batches"):
        files.export(described["None"], "caffe", tmp_path / "net.prototxt")


TENSORFLOW = """
class UserModel(Tower):
    @model_property
    def inference(self):
        x = slim.conv2d(self.x, 3, [1, 1], activation_fn=None, scope='conv')
        {}
    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
"""
BY_MOMENTS = """mean, variance = tf.nn.moments(x, [0, 1, 2])
        return tf.nn.batch_normalization(x, mean, variance, None, None, 1e-5)"""
GRAPHS = {
    "usual": ("return slim.batch_norm(x, is_training=self.is_training)", ("batch", "stored")),
    "constant": ("return slim.batch_norm(x, is_training=False)", ("stored", "stored")),
    "always": ("return slim.batch_norm(x, is_training=True)", ("batch", "batch")),
    "unfused": ("return slim.batch_norm(x, is_training=self.is_training, fused=False)", ("batch", "stored")),
    "unfused always": ("return slim.batch_norm(x, is_training=True, fused=False)", ("batch", "batch")),
    "unfused constant": ("return slim.batch_norm(x, is_training=False, fused=False)", ("stored", "stored")),
}


@pytest.mark.needs("tensorflow")
@pytest.mark.parametrize("case", GRAPHS)
def test_a_graphs_statistics_are_those_that_it_uses_in_each_state(
    case: str, frameworks: Frameworks, tmp_path: Path
) -> None:
    body, used = GRAPHS[case]
    path = tmp_path / "net.py"
    path.write_text(TENSORFLOW.format(body))
    topology = frameworks.describe(path, (3, 8, 8))
    (norm,) = [layer for layer in topology.layers if layer.type == "BatchNormalization"]
    parameters = {"training_statistics": "batch", "prediction_statistics": "stored", **norm.parameters}
    assert (parameters["training_statistics"], parameters["prediction_statistics"]) == used
    assert {"running_mean", "running_var"} <= set(norm.weights)


BY_HAND_TORCH = """
from torch import nn
class Centred(nn.Module):
    def forward(self, x): return x - x.mean((0, 2, 3), keepdim=True)
def network(params):
    return nn.Sequential(nn.Conv2d(3, 3, 1), Centred())
"""


@pytest.mark.parametrize(
    ("framework", "source"),
    [
        pytest.param("torch", BY_HAND_TORCH, marks=pytest.mark.needs("torch")),
        pytest.param("tensorflow", TENSORFLOW.format(BY_MOMENTS), marks=pytest.mark.needs("tensorflow")),
    ],
)  # fmt: skip
def test_statistics_of_the_batch_by_hand_do_not_mix_images(
    framework: str, source: str, coloured: multiseg.Dataset, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(source)
    job = multiseg.Job(dataset=coloured, backend=framework, model=tmp_path / "net.py", epochs=1, seed=1, batch_size=2)
    with job.train(tmp_path / "run", progress=False) as run:
        paths = sorted((coloured.path.parent / "input").glob("*.png"))[:5]
        for path, output in zip(paths, run.test_list(paths), strict=True):
            np.testing.assert_allclose(run.test_one(path).array, output.array, rtol=1e-5, atol=1e-4)


def test_layers_of_an_image_do_not_depend_on_the_others_where_the_output_hides_them(
    backend: str, frameworks: Frameworks, tmp_path: Path
) -> None:
    """A softmax over one channel is 1 whatever the normalisation by the batch's statistics makes."""
    topology = network(
        ("BatchNormalization", {**USES["batch"], "affine": False}), ("Softmax", {"axis": 1}), shape=(1, 4, 5)
    )
    path = files.export(topology, backend, tmp_path / f"net{registry.get(backend).formats[0]}")
    weights = {name: np.ones(shape, np.float32) for name, shape in topology.weights.items()}
    images = np.random.default_rng(1).normal(size=(3, 1, 4, 5)).astype(np.float32) * np.array(
        [1, 2, 4], np.float32
    ).reshape(3, 1, 1, 1)
    layout = Layout(registry.get(backend).data_order, "RGB", None)
    worker = frameworks.load(backend, path, topology, weights)
    worker.call("predict", features=layout.features(images), labels=None)  # without the layers, nothing is to be seen
    output, _, seen = worker.call("predict", features=layout.features(images), labels=None, activations=True)
    assert (output == 1).all()
    x = images.astype(np.float64)
    expected = (x - x.mean((1, 2, 3), keepdims=True)) / np.sqrt(x.var((1, 2, 3), keepdims=True) + 1e-5)
    closest = min(np.abs(layout.activation(value) - expected).max() for value in seen.values() if value.size == x.size)
    assert closest < 1e-5


@pytest.mark.parametrize("size", [5, 6])
def test_values_without_channels_are_normalised_along_their_first_axis_or_refused(
    backend: str, size: int, frameworks: Frameworks, tmp_path: Path
) -> None:
    """TensorFlow's layer normalises along the last axis; of a square value the shapes of the weights would not tell."""
    topology = network(("Squeeze", {}), ("BatchNormalization", {}), ("Flatten", {}), shape=(1, 5, size))
    path = tmp_path / f"net{registry.get(backend).formats[0]}"
    if backend == "tensorflow":
        with pytest.raises(ModelError, match=r"normalises along the first axis .* not an image"):
            files.export(topology, backend, path)
        return
    files.export(topology, backend, path)
    images = np.random.default_rng(1).normal(size=(3, 1, 5, size)).astype(np.float32)
    weights = random_weights(topology)
    made = frameworks.predict(backend, path, topology, weights, images)
    x = images[:, 0].astype(np.float64) * weights["first.weight"].item()
    norm = {
        part: weights[f"l1.{part}"][:, None].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    expected = (x - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
    assert np.allclose(made, expected.reshape(3, -1), rtol=0, atol=1e-5)
