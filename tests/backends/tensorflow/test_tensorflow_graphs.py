"""Plain TensorFlow graphs as network files: they compute what they did, train, and show and give their weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers import neutral_math, tensorflow_graphs
from helpers.tensorflow_graphs import Written, describe, linear, load, small
from multiseg.errors import ModelError
from multiseg.model_files import copies, kinds
from multiseg.topology import Topology

pytestmark = pytest.mark.needs("tensorflow")

FILES = ["frozen.pb", "frozen.pbtxt", "net.meta", "saved"]


@pytest.mark.parametrize("file", FILES)
def test_a_graph_computes_what_it_did_and_is_described(tmp_path: Path, file: str) -> None:
    written = Written(tmp_path, small)
    loaded = load(tmp_path / file, solver=None)
    assert np.allclose(loaded.predict(written.images, None)[0], written.expected, atol=1e-6)
    description, weights = describe(tmp_path / file), loaded.get_weights()
    topology = Topology.of(file, "", description)
    types = [layer.type for layer in topology.layers]
    assert types == ["Conv", "BatchNormalization", "Relu", "MaxPool", "ConvTranspose"]
    assert {name: value.shape for name, value in weights.items()} == topology.weights
    made = neutral_math.run(description, weights, written.images.transpose(0, 3, 1, 2))
    assert np.allclose(made.transpose(0, 2, 3, 1), written.expected, atol=1e-5)


@pytest.mark.parametrize("file", FILES)
def test_a_graph_trains_what_are_its_weights_and_not_its_statistics(tmp_path: Path, file: str) -> None:
    written = Written(tmp_path, small)
    loaded = load(tmp_path / file)
    assert loaded.describe()["loss"] == "l2"
    before, labels = loaded.get_weights(), written.images[:, ::-1]
    loss = np.square(written.expected - labels).mean()
    assert loaded.train_step(written.images, labels, 0.01) == pytest.approx(loss, rel=1e-5)
    assert loaded.predict(written.images, labels)[1] < loss
    after = loaded.get_weights()
    trained = {name for name in before if not np.array_equal(before[name], after[name])}
    assert trained == {"conv.weight", "norm.weight", "norm.bias", "up.weight"}
    assert set(before) - trained == {"norm.running_mean", "norm.running_var"}


@pytest.mark.parametrize("loss", [None, "l1"])
def test_a_frozen_graphs_step_follows_its_gradient(tmp_path: Path, loss: str | None) -> None:
    written = Written(tmp_path, linear)
    loaded, x, y = load(tmp_path / "frozen.pb", loss=loss), written.images, written.images[::-1] + 1
    weights = loaded.get_weights()
    factor, offset = weights["only.weight"].item(), weights["only.bias"].item()
    difference = factor * x.astype(np.float64) + offset - y
    slope = np.sign(difference) if loss else 2 * difference
    loaded.train_step(x, y, 0.1)
    after = loaded.get_weights()
    assert after["only.weight"].item() == pytest.approx(factor - 0.1 * (slope * x).mean(), rel=1e-5)
    assert after["only.bias"].item() == pytest.approx(offset - 0.1 * slope.mean(), rel=1e-5)


def test_large_strides_of_a_graph_are_computed_as_products(tmp_path: Path) -> None:
    def strided(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        net = v1.nn.conv2d(x, v1.get_variable("down/weights", [4, 4, 1, 8]), [1, 4, 4, 1], "VALID")
        kernel = v1.get_variable("up/weights", [4, 4, 1, 8])
        return v1.nn.conv2d_transpose(net, kernel, v1.shape(x), [1, 4, 4, 1], "VALID")

    written = Written(tmp_path, strided)
    lowered, plain = load(tmp_path / "frozen.pb"), load(tmp_path / "frozen.pb", lowering=False)
    assert lowered.describe()["lowered"] == ["down", "up"]
    for loaded in (lowered, plain):
        assert np.allclose(loaded.predict(written.images, None)[0], written.expected, atol=1e-5)
        loaded.train_step(written.images, -written.images, 0.1)
    ours, theirs = lowered.get_weights(), plain.get_weights()
    assert all(np.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_a_graph_that_classifies_has_the_cross_entropy_of_class_numbers(tmp_path: Path) -> None:
    def classes(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        return v1.nn.softmax(v1.nn.conv2d(x, v1.get_variable("score/weights", [1, 1, 1, 3]), [1, 1, 1, 1], "SAME"))

    written = Written(tmp_path, classes)
    labels = np.random.default_rng(4).integers(0, 3, (2, 8, 8, 1))
    loaded = load(tmp_path / "frozen.pb")
    expected = -np.log(np.take_along_axis(written.expected.astype(np.float64), labels, 3)).mean()
    assert loaded.predict(written.images, labels.astype(np.float32))[1] == pytest.approx(expected, rel=1e-5)
    before = loaded.get_weights()["score.weight"]
    loaded.train_step(written.images, labels.astype(np.float32), 0.1)
    assert not np.array_equal(loaded.get_weights()["score.weight"], before)


def test_switches_beside_the_image_are_set(tmp_path: Path) -> None:
    """Dropout and batch normalisation that placeholders switch: off in prediction, on in training."""
    import tf_slim

    def switched(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        training = v1.placeholder_with_default(False, [], "training")
        net = tf_slim.batch_norm(x, is_training=training, scope="norm", updates_collections=["none"])
        net = v1.nn.dropout(net, keep_prob=v1.placeholder(v1.float32, [], "keep_prob"))
        return tf_slim.conv2d(net, 1, [3, 3], scope="conv", activation_fn=None)

    written = Written(tmp_path, switched)
    for file in ("frozen.pb", "net.meta"):
        loaded = load(tmp_path / file)
        assert np.allclose(loaded.predict(written.images, None)[0], written.expected, atol=1e-5), file
        # normalised by the batch's own mean, the output does not change with an offset of the images
        first, second = (loaded.train_step(written.images + add, 0 * written.images, 0.0) for add in (0, 5))
        assert first == pytest.approx(second, rel=1e-3)
        types = [layer["type"] for layer in describe(tmp_path / file)["layers"]]
        assert types[0] == "BatchNormalization" and types[-1] == "Conv"


def conditional(x: Any, activation: str = "relu", default: bool = False) -> Any:
    """A convolution, batch normalisation by the moments of the batch or stored ones, an activation and a convolution."""
    v1 = tensorflow_graphs.tf()
    training = v1.placeholder_with_default(False, [], "phase") if default else v1.placeholder(v1.bool, [], "training")
    net = v1.nn.conv2d(x, v1.get_variable("c1/weights", [3, 3, 1, 4]), 1, "SAME")
    draw = v1.random_uniform_initializer(0.5, 1.5)
    names = ("gamma", "beta", "moving_mean", "moving_variance")
    scale, offset, *stored = (v1.get_variable(f"c1/norm/{name}", [4], initializer=draw) for name in names)
    mean, variance = v1.cond(training, lambda: tuple(v1.nn.moments(net, [0, 1, 2])), lambda: tuple(stored))
    net = v1.nn.batch_normalization(net, mean, variance, offset, scale, 1e-3)
    net = v1.nn.dropout(net, rate=v1.where_v2(training, 0.3, 0.0))
    kernel, bias = v1.get_variable("c2/weights", [1, 1, 4, 2]), v1.get_variable("c2/biases", [2])
    return v1.nn.bias_add(v1.nn.conv2d(getattr(v1.nn, activation)(net), kernel, 1, "SAME"), bias)


@pytest.mark.parametrize("default", [False, True])
def test_statistics_that_a_condition_switches_are_a_layer(tmp_path: Path, default: bool) -> None:
    from multiseg_tensorflow.reader import read_weights

    written = Written(tmp_path, lambda x: conditional(x, default=default))
    for file in ("frozen.pb", "net.meta"):
        path = tmp_path / file
        description = describe(path)
        types = [layer["type"] for layer in description["layers"]]
        assert types == ["Conv", "BatchNormalization", "Dropout", "Relu", "Conv"], file
        norm = description["layers"][1]
        assert "training_statistics" not in norm["parameters"]  # those of the batch
        weights = read_weights(str(path if file == "frozen.pb" else tmp_path / "net"), str(path), [1, 8, 8])
        images = np.transpose(written.images, (0, 3, 1, 2))
        computed = neutral_math.run(description, weights, images)
        assert np.allclose(computed, np.transpose(written.expected, (0, 3, 1, 2)), atol=1e-5), file


def test_networks_after_conditions_and_loops_are_told_apart(tmp_path: Path) -> None:
    def looped(factor: float) -> Callable[[Any], Any]:
        v1 = tensorflow_graphs.tf()
        return lambda x: linear(v1.map_fn(lambda image: v1.nn.relu(image * factor), x))

    def topology(name: str, build: Callable[[Any], Any]) -> Topology:
        (tmp_path / name).mkdir()
        Written(tmp_path / name, build)
        return Topology.of(name, "test", describe(tmp_path / name / "net.meta"))

    assert topology("relu", conditional) == topology("same", conditional)
    assert topology("other relu", conditional) != topology("sigmoid", lambda x: conditional(x, "sigmoid"))
    assert topology("twofold", looped(2.0)) == topology("twofold again", looped(2.0))
    assert topology("two", looped(2.0)) != topology("three", looped(3.0))


@pytest.mark.parametrize("resources", [False, True])
def test_a_network_that_waits_for_a_change_of_a_variable_is_refused(tmp_path: Path, resources: bool) -> None:
    def averaging(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        average = v1.get_variable("average", [1], use_resource=resources, trainable=False)
        mean = v1.reduce_mean(x, [0, 1, 2])

        def update() -> Any:
            with v1.control_dependencies([v1.assign_sub(average, 0.1 * (average - mean))]):
                return v1.identity(mean)

        return linear(x - v1.cond(v1.placeholder(v1.bool, [], "training"), update, lambda: v1.identity(average)))

    Written(tmp_path, averaging)
    with pytest.raises(ModelError, match=r"net\.meta: its output waits for \S*Assign.*changes the variable average;"):
        describe(tmp_path / "net.meta")


def test_a_network_that_does_not_read_its_images_is_refused(tmp_path: Path) -> None:
    def unread(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        constant = v1.get_variable("constant", [1, 8, 8, 1])
        return v1.cond(v1.constant(True), lambda: v1.identity(constant), lambda: x)

    Written(tmp_path, unread)
    with pytest.raises(ModelError, match=r"net\.meta: its output .* does not depend on the images"):
        describe(tmp_path / "net.meta")


def test_names_beside_the_file_choose_among_several_ends(tmp_path: Path) -> None:
    def two(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        other = v1.placeholder(v1.float32, [None, 8, 8, 1], "other")
        return v1.concat([linear(x), v1.abs(other, name="size")], 3)

    v1 = tensorflow_graphs.tf()
    with v1.Graph().as_default() as graph, v1.Session() as session:
        two(v1.placeholder(v1.float32, [None, 8, 8, 1], "image"))
        session.run(v1.global_variables_initializer())
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["concat"])
    path = tmp_path / "two.pb"
    path.write_bytes(frozen.SerializeToString())
    (tmp_path / "two.pb.json").write_text('{"input": "other", "output": "size:0"}')
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    assert np.array_equal(load(path, solver=None).predict(images, None)[0], np.abs(images))
    assert [layer["type"] for layer in describe(path)["layers"]] == ["Abs"]


@pytest.mark.parametrize("resources", [False, True])
def test_the_output_of_a_graph_with_its_solver_is_the_networks(tmp_path: Path, resources: bool) -> None:
    def trained(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        with v1.variable_scope("net", use_resource=resources):
            score = small(x)
        loss = v1.reduce_mean((score - v1.placeholder(v1.float32, [None, 8, 8, 1], "labels")) ** 2)
        v1.train.AdamOptimizer(0.1).minimize(loss, v1.train.get_or_create_global_step())
        return score

    written = Written(tmp_path, trained)
    assert np.allclose(load(tmp_path / "net.meta").predict(written.images, None)[0], written.expected, atol=1e-6)
    (tmp_path / "net.meta.json").write_text('{"output": "scores:0"}')
    with pytest.raises(
        ModelError, match=r"no tensor 'scores:0'.*; its last operations are: .*net/conv2d_transpose.*output"
    ):
        load(tmp_path / "net.meta")


def test_a_graph_of_channels_first_takes_and_gives_channels_last(tmp_path: Path) -> None:
    def first(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        net = v1.transpose(x, [0, 2, 3, 1])
        net = v1.nn.conv2d(net, v1.get_variable("conv/weights", [3, 3, 3, 2]), [1, 1, 1, 1], "SAME")
        return v1.transpose(net, [0, 3, 1, 2])

    written = Written(tmp_path, first, (3, 8, 10))
    loaded = load(tmp_path / "frozen.pb", input_shape=(3, 8, 10), solver=None)
    output = loaded.predict(written.images.transpose(0, 2, 3, 1), None)[0]
    assert np.allclose(output, written.expected.transpose(0, 2, 3, 1), atol=1e-5)
    description = describe(tmp_path / "frozen.pb")
    assert description["input_shape"] == [3, 8, 10]
    assert [layer["type"] for layer in description["layers"]] == ["Conv"]


def test_a_keras_export_loads_and_has_the_weights_of_its_model(tmp_path: Path) -> None:
    from multiseg_tensorflow.reader import read_weights

    from multiseg.errors import ModelError

    made = tensorflow_graphs.keras(tmp_path)
    for folder in ("saved", "exported"):
        loaded = load(tmp_path / folder)
        assert np.allclose(loaded.predict(made["images"], None)[0], made["expected"], atol=1e-5)
    description, weights = describe(tmp_path / "exported"), loaded.get_weights()
    types = [layer["type"] for layer in description["layers"]]
    assert types == ["Conv", "Relu", "BatchNormalization", "Flatten", "Gemm", "Reshape"]
    again = neutral_math.run(description, weights, made["images"].transpose(0, 3, 1, 2))
    assert np.allclose(again.transpose(0, 2, 3, 1), made["expected"], atol=1e-5)
    first = loaded.train_step(made["images"], made["images"], 0.01)
    assert loaded.predict(made["images"], made["images"])[1] < first
    stored = read_weights(str(tmp_path / "exported"))
    assert {name: value.shape for name, value in stored.items()} == {name: w.shape for name, w in weights.items()}
    own = read_weights(
        str(tmp_path / "model.keras")
    )  # the model itself, of which the export has the layers of prediction
    assert all(np.array_equal(own[name], stored[name]) for name in stored)
    with pytest.raises(ModelError, match=r"numbered: .* layers are numbered, not named"):
        read_weights(str(tmp_path / "numbered"))
    named = read_weights(str(tmp_path / "named-1"))
    assert set(named) == {"net.conv.weight", "net.conv.bias"}
    kernel = np.arange(24, dtype=np.float32).reshape(3, 2, 1, 4)
    assert np.array_equal(named["net.conv.weight"], kernel.transpose(3, 2, 0, 1))


def test_weights_are_read_from_checkpoints_and_graphs(tmp_path: Path) -> None:
    from multiseg_tensorflow.reader import read_weights

    Written(tmp_path, small)
    expected = load(tmp_path / "frozen.pb").get_weights()
    for name in ("net", "net.index", "net.data-00000-of-00001", "", "checkpoint", "frozen.pb", "saved"):
        weights = read_weights(str(tmp_path / name))
        assert set(weights) == set(expected), name
        assert all(np.array_equal(weights[key], expected[key]) for key in expected), name
    (tmp_path / "net.meta").unlink()  # by names and shapes alone
    weights = read_weights(str(tmp_path / "net"))
    assert all(np.array_equal(weights[key], expected[key]) for key in expected)


def test_weights_of_a_graph_of_any_size_are_read_for_the_size_of_its_images(tmp_path: Path) -> None:
    from multiseg_tensorflow.reader import read_weights

    Written(tmp_path, small, (None, None, 1))
    path = tmp_path / "frozen.pb"
    with pytest.raises(ModelError, match=r"frozen\.pb: does not specify its image size; specify input_shape"):
        read_weights(str(path))
    expected = read_weights(str(tmp_path / "net"))  # of the checkpoint, by names and shapes
    multiseg.convert(path, "safetensors", tmp_path / "weights.safetensors", input_shape=(1, 8, 8))
    weights = multiseg.model_files.read_weights(tmp_path / "weights.safetensors")
    assert set(weights) == set(expected)
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("network", ["net.meta", None])
def test_a_scale_that_is_a_constant_of_the_graph_is_read_with_its_checkpoint(
    tmp_path: Path, network: str | None
) -> None:
    from multiseg_tensorflow.reader import read_weights

    def unscaled(x: Any) -> Any:
        v1 = tensorflow_graphs.tf()
        draw = v1.random_uniform_initializer(0.5, 1.5)
        offset, mean, variance = (v1.get_variable(f"norm/{name}", [4], initializer=draw) for name in "abc")
        net = v1.nn.conv2d(x, v1.get_variable("conv/weights", [3, 3, 1, 4]), 1, "SAME")
        scale = v1.constant([1.0, 1.0, 1.0, 2.0], name="norm/scale")
        return v1.nn.fused_batch_norm(net, scale, offset, mean, variance, is_training=False)[0]

    written = Written(tmp_path, unscaled)
    weights = read_weights(str(tmp_path / "net"), *((str(tmp_path / network), [1, 8, 8]) if network else ()))
    computed = neutral_math.run(describe(tmp_path / "net.meta"), weights, np.transpose(written.images, (0, 3, 1, 2)))
    assert np.allclose(computed, np.transpose(written.expected, (0, 3, 1, 2)), atol=1e-5)


def test_a_meta_graph_without_its_checkpoint_begins_at_its_initialisers(tmp_path: Path) -> None:
    Written(tmp_path, small, seed=None)
    for path in [*tmp_path.glob("net.index"), *tmp_path.glob("net.data-*")]:
        path.unlink()
    one, same, other = (load(tmp_path / "net.meta", seed=seed).get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["conv.weight"], other["conv.weight"])
    assert np.array_equal(one["norm.running_var"], np.ones(4))


@pytest.mark.parametrize("file", FILES)
def test_kinds_are_told_from_content(tmp_path: Path, file: str) -> None:
    Written(tmp_path, linear)
    names = {"frozen.pb": "TensorFlow graph", "frozen.pbtxt": "TensorFlow graph", "net.meta": "TensorFlow MetaGraph"}
    path = tmp_path / file
    expected = names.get(file, "TensorFlow SavedModel")
    assert kinds.kind_of(path, "network")[1].name == expected
    if path.is_file():
        renamed = path.rename(tmp_path / "renamed.dat")
        assert kinds.kind_of(renamed, "network")[1].name == expected


@pytest.mark.parametrize("file", FILES)
def test_a_network_file_is_copied_with_all_that_belongs_to_it(tmp_path: Path, file: str) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    written = Written(tmp_path / "from", small)
    (tmp_path / "from" / f"{file}.json").write_text('{"output": "output:0"}')
    source, copy = tmp_path / "from" / file, tmp_path / "to" / file
    copies.copy(source, copy.parent)
    assert copies.changed(source, copy) is None
    assert np.allclose(load(copy, solver=None).predict(written.images, None)[0], written.expected, atol=1e-6)
    (tmp_path / "to" / f"{file}.json").write_text("{}")
    assert copies.changed(source, copy) is not None


def test_a_run_keeps_a_graph_of_several_files_whole(tmp_path: Path, dataset: multiseg.Dataset) -> None:
    (tmp_path / "from").mkdir()
    Written(tmp_path / "from", small, (32, 32, 1))
    job = multiseg.Job(dataset, "tensorflow", model=tmp_path / "from" / "saved", epochs=1, seed=1, learning_rate=1e-9)
    with job.train(tmp_path / "run", progress=False) as run:
        expected = run.predict(dataset.val.read([0, 1])[0])
    again = multiseg.Job(dataset, "tensorflow", model=tmp_path / "from" / "saved", epochs=1, learning_rate=1e-9)
    again.train(tmp_path / "run", resume=True, progress=False).close()
    shutil.rmtree(tmp_path / "from")
    with multiseg.Run.open(tmp_path / "run") as run:
        assert np.array_equal(run.predict(dataset.val.read([0, 1])[0]), expected)
