"""Frozen graphs whose weights pass arithmetic, that end in class indices, or begin before the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers import neutral_math, tensorflow_graphs
from multiseg.errors import ModelError, SettingsError
from multiseg.model_files import weights_file
from multiseg.network import NetworkSpec
from multiseg.topology import Topology

pytestmark = pytest.mark.needs("tensorflow")

CHANNELS = 3
SIZE = 8
Build = Callable[[Any, Any, Any], Any]


def transposed(v1: Any, x: Any, random: Any) -> Any:
    """A kernel stored as OIHW."""
    kernel = v1.constant(random.normal(size=(4, CHANNELS, 3, 3)).astype(np.float32))
    return v1.nn.conv2d(x, v1.transpose(kernel, [2, 3, 1, 0]), 1, "SAME", name="conv/Conv2D")


def halves(v1: Any, x: Any, random: Any) -> Any:
    """One constant with the kernels of two convolutions, which are not groups of one."""
    kernels = v1.split(v1.constant(random.normal(size=(3, 3, CHANNELS, 6)).astype(np.float32)), 2, axis=3)
    first, second = (v1.nn.conv2d(x, kernel, 1, "SAME", name=f"conv{i}/Conv2D") for i, kernel in enumerate(kernels))
    return v1.nn.relu(first) + second


def groups(v1: Any, x: Any, random: Any) -> Any:
    """A kernel that is split for the groups of one convolution."""
    kernels = v1.split(v1.constant(random.normal(size=(3, 3, 1, 6)).astype(np.float32)), 3, axis=3)
    images = v1.split(x, 3, axis=3)
    pairs = zip(images, kernels, strict=True)
    return v1.concat([v1.nn.conv2d(image, kernel, 1, "SAME") for image, kernel in pairs], 3)


def scaled(v1: Any, x: Any, random: Any) -> Any:
    """Weight normalisation: a kernel that is computed from a direction and a length."""
    direction = v1.constant(random.normal(size=(3, 3, CHANNELS, 4)).astype(np.float32))
    length = v1.constant(random.uniform(1, 2, 4).astype(np.float32))
    kernel = length * direction / v1.sqrt(v1.reduce_sum(v1.square(direction), [0, 1, 2]))
    offset = v1.constant(random.normal(size=4).astype(np.float32)) - 1.0
    return v1.nn.bias_add(v1.nn.conv2d(x, kernel, 1, "SAME"), offset)


def reshaped(v1: Any, x: Any, random: Any) -> Any:
    """A depthwise kernel stored as a matrix, and a matrix of a dense layer stored transposed."""
    kernel = v1.reshape(v1.constant(random.normal(size=(9, 3)).astype(np.float32)), [3, 3, CHANNELS, 1])
    net = v1.reshape(v1.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME"), [-1, SIZE * SIZE * CHANNELS])
    matrix = v1.transpose(v1.constant(random.normal(size=(5, SIZE * SIZE * CHANNELS)).astype(np.float32)))
    return v1.matmul(net, matrix) + v1.constant(random.normal(size=5).astype(np.float32))


def upsampled(v1: Any, x: Any, random: Any) -> Any:
    """A bilinear kernel that is put together from parts, with a bias of one element that is added."""
    line = v1.constant([0.25, 0.75, 0.75, 0.25])
    kernel = v1.reshape(line, [4, 1, 1, 1]) * v1.reshape(line, [1, 4, 1, 1]) * v1.ones([1, 1, 1, CHANNELS])
    net = v1.nn.conv2d_transpose(x, kernel, [v1.shape(x)[0], 2 * SIZE, 2 * SIZE, 1], 2, "SAME")
    return net + v1.constant([0.5])


def unfused(v1: Any, x: Any, random: Any) -> Any:
    """Batch normalisation that is written as arithmetic on constants."""
    scale, offset, mean, variance = (v1.constant(random.uniform(1, 2, 4).astype(np.float32)) for _ in range(4))
    net = v1.nn.conv2d(x, v1.constant(random.normal(size=(1, 1, CHANNELS, 4)).astype(np.float32)), 1, "SAME")
    return v1.nn.relu(v1.nn.batch_normalization(net, mean, variance, offset, scale, 1e-3))


BUILDS: dict[str, Build] = {
    build.__name__: build for build in (transposed, halves, groups, scaled, reshaped, upsampled, unfused)
}


def write(folder: Path, build: Build, name: str = "frozen.pb") -> tuple[Path, Any, Any]:
    """Write a graph of constants; return its path, images, and the output for them when TensorFlow runs it."""
    v1 = tensorflow_graphs.tf()
    random = np.random.default_rng(3)
    with v1.Graph().as_default() as graph, v1.Session() as session:
        before = v1.constant(
            random.normal(size=(300, 100)).astype(np.float32), name="table"
        )  # longer than a file's head
        v1.identity(before, name="before")
        x = v1.placeholder(v1.float32, [None, SIZE, SIZE, CHANNELS], "image")
        output = v1.identity(build(v1, x, random), "output")
        images = random.normal(size=(2, SIZE, SIZE, CHANNELS)).astype(np.float32)
        expected = session.run(output, {x: images})
        (folder / name).write_bytes(graph.as_graph_def().SerializeToString())
    return folder / name, images, expected


def load(path: Path, **settings: Any) -> Any:
    """Load a graph for prediction."""
    from multiseg_tensorflow.network import Network

    shape = (CHANNELS, SIZE, SIZE)
    spec = NetworkSpec(
        model=str(path), input_shape=shape, label_shape=(1, SIZE, SIZE), solver=None, loss=None, seed=1, batch_size=None,
        val_batch_size=None, threads=1, device="cpu", lowering=True,
    )  # fmt: skip
    return Network(replace(spec, **settings))


@pytest.mark.parametrize("name", BUILDS)
def test_weights_that_pass_arithmetic_are_folded(tmp_path: Path, here: None, name: str) -> None:
    from multiseg_tensorflow import reader

    path, images, expected = write(tmp_path, BUILDS[name])
    description = reader.describe(str(path), None)
    weights = reader.read_weights(str(path))
    assert {key: value.shape for key, value in weights.items()} == Topology.of(
        name, "", description
    ).weights and weights
    computed = neutral_math.run(description, weights, images.transpose(0, 3, 1, 2))
    neutral = expected.transpose(0, 3, 1, 2) if expected.ndim == 4 else expected
    np.testing.assert_allclose(computed, neutral, rtol=1e-5, atol=1e-5)
    multiseg.convert(path, "safetensors", tmp_path / "weights.safetensors")
    again = weights_file.read(tmp_path / "weights.safetensors").weights
    assert again.keys() == weights.keys() and all(np.array_equal(again[key], weights[key]) for key in again)


@pytest.mark.needs("torch")
@pytest.mark.parametrize("name", BUILDS)
def test_folded_weights_move_to_pytorch(tmp_path: Path, here: None, name: str) -> None:
    import torch

    path, images, expected = write(tmp_path, BUILDS[name])
    network = multiseg.export(path, "torch", tmp_path / "net.py")
    multiseg.convert(path, "pt", tmp_path / "net.pt", network=network)
    namespace: dict[str, Any] = {"__name__": "net"}
    exec(network.read_text(), namespace)
    modules = [value for value in namespace.values() if isinstance(value, type) and issubclass(value, torch.nn.Module)]
    module = modules[-1]()
    module.load_state_dict(torch.load(tmp_path / "net.pt"))
    output = module.eval()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).detach().numpy()
    neutral = expected.transpose(0, 3, 1, 2) if expected.ndim == 4 else expected
    np.testing.assert_allclose(output, neutral, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", [[2, 3, 1, 0], [0, 1, 3, 2]])
def test_a_variable_that_is_transposed_keeps_its_name(tmp_path: Path, here: None, order: list[int]) -> None:
    """The program's own checkpoint can be written for it: the layout of the layer's kernel is inverted."""
    v1 = tensorflow_graphs.tf()
    kernel = np.random.default_rng(1).normal(size=(3, 3, CHANNELS, 4)).astype(np.float32)

    def build(x: Any) -> Any:
        stored = kernel.transpose(np.argsort(order))
        variable = v1.get_variable("conv/weights", initializer=v1.constant(stored))
        return v1.nn.conv2d(x, v1.transpose(variable, order), 1, "SAME")

    written = tensorflow_graphs.Written(tmp_path, build, (SIZE, SIZE, CHANNELS))
    for file in ("net.meta", "saved"):
        multiseg.convert(tmp_path / ("net" if file == "net.meta" else file), "safetensors", tmp_path / "w.safetensors",
                         source_network=tmp_path / file)  # fmt: skip
        weights = weights_file.read(tmp_path / "w.safetensors").weights
        assert list(weights) == ["conv.weight"] and np.array_equal(weights["conv.weight"], kernel.transpose(3, 2, 0, 1))
    doubled = weights_file.NeutralWeights({"conv.weight": 2 * weights["conv.weight"]}, "RGB")
    weights_file.write(tmp_path / "w.safetensors", doubled)
    multiseg.convert(tmp_path / "w.safetensors", "tf", tmp_path / "new.ckpt", network=tmp_path / "net.meta")
    with v1.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(str(tmp_path / "net.meta")).restore(session, str(tmp_path / "new.ckpt"))
        output = session.run("output:0", {"image:0": written.images})
    np.testing.assert_allclose(output, 2 * written.expected, rtol=1e-5, atol=1e-6)


def test_variables_that_are_used_in_arithmetic_are_read_but_not_written(tmp_path: Path, here: None) -> None:
    v1 = tensorflow_graphs.tf()

    def build(x: Any) -> Any:
        kernel = v1.get_variable("conv/direction", [3, 3, CHANNELS, 4]) * v1.get_variable("conv/length", [4])
        return v1.nn.conv2d(x, kernel, 1, "SAME", name="conv/Conv2D")

    written = tensorflow_graphs.Written(tmp_path, build, (SIZE, SIZE, CHANNELS))
    assert np.allclose(load(tmp_path / "net.meta").predict(written.images, None)[0], written.expected, atol=1e-5)
    multiseg.convert(tmp_path / "saved", "safetensors", tmp_path / "w.safetensors")
    values = v1.train.load_checkpoint(str(tmp_path / "net"))
    kernel = values.get_tensor("conv/direction") * values.get_tensor("conv/length")
    weights = weights_file.read(tmp_path / "w.safetensors").weights
    assert list(weights) == ["conv.weight"] and np.array_equal(weights["conv.weight"], kernel.transpose(3, 2, 0, 1))
    with pytest.raises(ModelError, match=r"net\.meta: computes weights from its variable conv/direction"):
        multiseg.convert(tmp_path / "w.safetensors", "tf", tmp_path / "new.ckpt", network=tmp_path / "net.meta")


def argmax(v1: Any, x: Any, random: Any) -> Any:
    scores = v1.nn.conv2d(x, v1.constant(random.normal(size=(1, 1, CHANNELS, 4)).astype(np.float32)), 1, "SAME")
    scores = v1.nn.bias_add(scores, v1.constant(random.normal(size=4).astype(np.float32)), name="scores")
    return v1.cast(v1.expand_dims(v1.argmax(scores, 3), 3), v1.int32)


def test_a_graph_that_ends_in_class_indices_has_its_scores_as_output(tmp_path: Path, here: None) -> None:
    v1 = tensorflow_graphs.tf()
    path, images, classes = write(tmp_path, argmax)
    output = load(path).predict(images, None)[0]
    assert output.shape == (2, SIZE, SIZE, 4) and np.array_equal(output.argmax(3)[..., None], classes)
    with v1.Graph().as_default(), v1.Session() as session:
        graph = v1.GraphDef()
        graph.ParseFromString(path.read_bytes())
        v1.import_graph_def(graph, name="")
        np.testing.assert_allclose(output, session.run("scores:0", {"image:0": images}), rtol=1e-5, atol=1e-6)


def test_an_input_within_the_graph_needs_nothing_of_what_is_before_it(tmp_path: Path, here: None) -> None:
    """A reader of files, decoding and a switch come before the tensor that is named as the input."""
    v1 = tensorflow_graphs.tf()
    images = np.random.default_rng(3).normal(size=(2, SIZE, SIZE, CHANNELS)).astype(np.float32)
    with v1.Graph().as_default() as graph, v1.Session() as session:
        pixels = v1.image.decode_png(v1.read_file(v1.placeholder(v1.string, [], "file")), channels=3)
        bright = v1.cast(pixels, v1.float32) * v1.placeholder(v1.float32, [], "brightness")
        batch = v1.reshape(bright, [-1, SIZE, SIZE, CHANNELS], name="batch")
        transposed(v1, batch, np.random.default_rng(3))
        expected = session.run("conv/Conv2D:0", {"batch:0": images})
        (tmp_path / "frozen.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (tmp_path / "frozen.pb.json").write_text('{"input": "batch", "output": "conv/Conv2D"}')
    np.testing.assert_allclose(load(tmp_path / "frozen.pb").predict(images, None)[0], expected, rtol=1e-5, atol=1e-6)


def normalised(v1: Any, x: Any, random: Any) -> Any:
    """A network for pixels, which it scales and centres itself."""
    images = v1.cast(x, v1.float32) / 255.0 - v1.constant([0.5, 0.25, 0.125])
    return v1.nn.conv2d(images, v1.constant(random.normal(size=(3, 3, CHANNELS, 4)).astype(np.float32)), 1, "SAME")


def write_pixels(folder: Path, size: int | None = SIZE) -> tuple[Path, Any, Any]:
    """Write a graph whose input is uint8; return its path, pixels, and the output that TensorFlow computes for them."""
    v1 = tensorflow_graphs.tf()
    random = np.random.default_rng(5)
    with v1.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(v1.uint8, [None, size, size, CHANNELS], "image")
        output = normalised(v1, x, random)
        images = random.integers(0, 256, (2, SIZE, SIZE, CHANNELS), np.uint8)
        expected = session.run(output, {x: images})
        (folder / "pixels.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return folder / "pixels.pb", images, expected


def test_a_graph_of_uint8_receives_pixels_and_refuses_anything_else(tmp_path: Path, here: None) -> None:
    from multiseg_tensorflow import reader

    path, images, expected = write_pixels(tmp_path)
    network = load(path)
    assert np.allclose(network.predict(images.astype(np.float32), None)[0], expected, rtol=1e-5, atol=1e-5)
    for wrong in (images - np.float32(104), images + np.float32(0.5), images * np.float32(2)):
        with pytest.raises(SettingsError, match=r"pixels\.pb: its input is uint8.*subtract_mean"):
            network.predict(wrong, None)
    description = reader.describe(str(path), None)
    weights = reader.read_weights(str(path))
    assert not any("Cast" in layer["type"] for layer in description["layers"])
    computed = neutral_math.run(description, weights, images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(computed, expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-5)


def test_training_a_graph_of_uint8_requires_images_without_the_mean_subtracted(
    tmp_path: Path, dataset: multiseg.Dataset
) -> None:
    v1 = tensorflow_graphs.tf()
    with v1.Graph().as_default() as graph:
        x = v1.placeholder(v1.uint8, [None, 32, 32, 1], "image")
        v1.nn.conv2d(v1.cast(x, v1.float32) / 255.0, v1.ones([3, 3, 1, 1]), 1, "SAME", name="score")
        (tmp_path / "pixels.pb").write_bytes(graph.as_graph_def().SerializeToString())
    job = multiseg.Job(dataset, "tensorflow", model=tmp_path / "pixels.pb", epochs=1, seed=1)
    with pytest.raises(SettingsError, match=r"subtract_mean='pixel': the input of pixels\.pb is uint8"):
        job.train(tmp_path / "refused", progress=False)
    job = multiseg.Job(
        dataset, "tensorflow", model=tmp_path / "pixels.pb", epochs=1, seed=1, subtract_mean="none", learning_rate=1e-12
    )
    with job.train(tmp_path / "run", progress=False) as run:
        image = dataset.val.read([0])[0][0, 0].astype(np.float64)
        padded = np.pad(image / 255, 1)
        expected = sum(padded[i : i + 32, j : j + 32] for i in range(3) for j in range(3))
        np.testing.assert_allclose(run.predict(dataset.val.read([0])[0])[0, 0], expected, rtol=1e-5, atol=1e-5)
