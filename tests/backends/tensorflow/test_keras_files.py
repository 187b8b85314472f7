"""Keras models in files: they predict as in Keras, train, and their weights move; code in files is refused."""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import keras_files
from multiseg import convert, describe
from multiseg.errors import ModelError
from multiseg.files import hdf5
from multiseg.model_files import choosing, kinds, reading
from multiseg.network import NetworkSpec
from multiseg.reference.network import forward
from multiseg.topology import Topology

pytestmark = pytest.mark.needs("tensorflow")

MODELS = """
image = keras.Input((16, 24, 3), name="image")
x = L.Rescaling(1 / 255)(image)
x = skip = L.Conv2D(8, 3, padding="same", activation="relu", name="first")(x)
x = L.BatchNormalization(name="norm", epsilon=1e-4)(x)
x = L.MaxPooling2D()(x)
x = L.SeparableConv2D(12, 3, padding="same", name="separable")(x)
x = L.LeakyReLU(0.1)(x)
x = L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
x = L.PReLU(shared_axes=[1, 2], name="prelu")(x)
x = L.Dropout(0.3)(x)
x = L.SpatialDropout2D(0.2)(x)
gate = L.Dense(12, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(keepdims=True)(x))
x = L.Multiply()([x, gate])
x = L.UpSampling2D()(x)
x = L.Concatenate()([x, skip])
x = L.Conv2DTranspose(6, 3, strides=2, padding="same", name="up")(x)
x = L.Conv2D(4, 3, strides=2, padding="same", groups=2, name="grouped")(x)
x = L.Add()([L.Maximum()([x, L.Conv2D(4, 1, name="side")(x)]), L.Average()([x, x])])
x = L.UpSampling2D(interpolation="bilinear")(L.AveragePooling2D(2)(x))
x = L.ZeroPadding2D(2)(L.Cropping2D(2)(x))
encoder_image = keras.Input((16, 24, 4))
encoder = keras.Model(encoder_image, L.Conv2D(5, 3, dilation_rate=2, padding="same", name="first")(encoder_image), name="encoder")
x = encoder(x)
model = keras.Model(image, L.Conv2D(3, 1, activation="softmax", name="last")(x))
save(model, "model.keras")
model.save(folder + "model.h5")
model.save_weights(folder + "model.weights.h5")
conv, last = L.Conv2D(4, 3, padding="same", name="conv"), L.Conv2D(1, 1, name="last")
small = keras.Sequential([keras.Input((None, None, 1)), conv, L.BatchNormalization(name="norm"), L.ReLU(6.0), last])
save(small, "small.keras")
draws = [draw.uniform(0, 1, (4, 8, 12, 1)).astype(np.float32) for _ in range(4)]
small.compile(keras.optimizers.SGD(0.05), "mse")
losses = [small.train_on_batch(images, labels) for images, labels in zip(draws[:2], draws[2:])]
values = {".".join(weight.path.split("/")[-2:]): weight.numpy() for weight in small.weights}
np.savez(folder + "trained.npz", losses=losses, draws=draws, **values)
dense = [L.Conv2D(2, 3, padding="same"), L.Flatten(), L.Dense(64), L.Reshape((8, 8, 1))]
save(keras.Sequential([keras.Input((8, 8, 1)), *dense]), "dense.h5")
rows = [L.Conv2D(4, 3, padding="same"), L.Reshape((96, 4)), L.Activation("softmax")]
save(keras.Sequential([keras.Input((8, 12, 1)), *rows]), "rows.keras")
noisy = [
    L.GaussianNoise(0.5, name="noise"), L.Conv2D(4, 3, name="conv"), L.ELU(0.5, name="elu"), L.AlphaDropout(0.1),
    L.GaussianDropout(0.2), L.GlobalMaxPooling2D(name="maximum"), L.Dense(64, name="dense"), L.Reshape((8, 8, 1))]
save(keras.Sequential([keras.Input((8, 8, 1)), *noisy]), "noisy.keras")
gated = keras.Sequential([
    keras.Input((8, 8, 1)), L.Conv2D(2, 1, activation="hard_sigmoid", name="gate"), L.SpatialDropout2D(0.2, name="drop"),
    L.Activation("hard_sigmoid", name="again")])
save(gated, "gated.keras")
gated.save(folder + "gated.h5")
columns = [L.Conv2D(4, 3, padding="same"), L.Reshape((4, 64)), L.Permute((2, 1)), L.Softmax(name="scores")]
save(keras.Sequential([keras.Input((8, 8, 1)), *columns]), "columns.keras")
doubling = keras.Sequential([keras.Input((8, 8, 1)), L.Lambda(lambda x: 2 * x, name="double")])
save(doubling, "lambda.keras")
save(doubling, "lambda.h5")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    keras_files.write(folder, MODELS)
    return folder


def load(path: Path, channels: int, height: int, width: int, labels: int, **settings: Any) -> Any:
    from multiseg_tensorflow.network import Network

    spec = NetworkSpec(
        model=str(path), input_shape=(channels, height, width), label_shape=(labels, height, width), solver=None, loss=None,
        seed=1, batch_size=None, val_batch_size=None, threads=2, device="cpu", lowering=True,
    )  # fmt: skip
    return Network(replace(spec, **settings))


@pytest.mark.parametrize("file", ["model.keras", "model.h5"])
def test_a_model_predicts_as_in_keras_and_its_description_computes_the_same(folder: Path, file: str) -> None:
    from multiseg_tensorflow import reader

    made = keras_files.predicted(folder / "model.keras")
    loaded = load(folder / file, 3, 16, 24, 3)
    assert np.allclose(loaded.predict(made["images"], None)[0], made["expected"], atol=1e-6)
    description, weights = reader.describe(str(folder / file), None), loaded.get_weights()
    names = [layer["name"] for layer in description["layers"]]
    assert {"norm", "prelu", "separable", "encoder.first", "max_pooling2d", "spatial_dropout2d", "last"} <= set(names)
    assert not any(layer["type"].startswith("tf.") for layer in description["layers"])
    assert [layer["parameters"] for layer in description["layers"] if layer["type"] == "Dropout"] == [
        {"ratio": 0.3}, {"ratio": 0.2, "channelwise": True},
    ]  # fmt: skip
    topology = Topology.of(file, "", description)
    again = forward(topology, weights, made["images"].transpose(0, 3, 1, 2)).output.value
    assert np.allclose(again.transpose(0, 2, 3, 1), made["expected"], atol=1e-5)


def test_a_configuration_in_the_manner_of_keras_2_loads(folder: Path, tmp_path: Path) -> None:
    import h5py
    from multiseg_tensorflow import reader

    def calls(node: Any) -> Any:
        """A call in a list: of (layer, number of its call, output, arguments); models within the model count from 1."""
        tensors = node["args"][0] if isinstance(node["args"][0], list) else node["args"]
        histories = [tensor["config"]["keras_history"] for tensor in tensors]
        return [[name, number + (name == "encoder"), output, {}] for name, number, output in histories]

    def changed(model: Any) -> None:
        for layer in model["layers"]:
            config = layer["config"]
            layer["inbound_nodes"] = [calls(node) for node in layer["inbound_nodes"]]
            if layer["class_name"] == "Functional":
                layer["class_name"] = "Model"
                changed(config)
                continue
            config["dtype"] = "float32"
            if "batch_shape" in config:
                config["batch_input_shape"] = config.pop("batch_shape")
            if layer["class_name"] == "SeparableConv2D":
                initialiser = {"class_name": "GlorotUniform", "config": {"seed": None, "dtype": "float32"}}
                config.update(groups=1, kernel_initializer=initialiser, kernel_regularizer=None)
            if layer["class_name"] == "BatchNormalization":
                config["axis"] = [3]

    shutil.copy(folder / "model.h5", tmp_path / "old.hdf5")
    with h5py.File(tmp_path / "old.hdf5", "a") as file:
        model = json.loads(file.attrs["model_config"])
        changed(model["config"])
        file.attrs["model_config"] = json.dumps({**model, "class_name": "Model"})
    old, new = (reader.describe(str(file), None) for file in (tmp_path / "old.hdf5", folder / "model.h5"))
    assert old == new
    weights = [reader.read_weights(str(file)) for file in (tmp_path / "old.hdf5", folder / "model.h5")]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[1])


def of_version(file: Path, version: str | None, target: Path) -> Path:
    """Copy a model's file as one that another version of Keras wrote: its version, and arguments that Keras 2 states."""
    import h5py

    def changed(model: str) -> str:
        config = json.loads(model)
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "SpatialDropout2D":
                layer["config"].update(noise_shape=None, seed=None, trainable=True)
        return json.dumps(config)

    if file.suffix == ".keras":
        with zipfile.ZipFile(file) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        metadata = {} if version is None else {"keras_version": version}
        config = changed(members["config.json"].decode()).encode()
        members.update({"metadata.json": json.dumps(metadata).encode(), "config.json": config})
        with zipfile.ZipFile(target, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return target
    shutil.copy(file, target)
    with h5py.File(target, "a") as copy:
        copy.attrs["model_config"] = changed(copy.attrs["model_config"])
        del copy.attrs["keras_version"]
        if version is not None:
            copy.attrs["keras_version"] = version.encode()
    return target


@pytest.mark.parametrize("version", [None, "2.2.4-tf", "2.21.0", "3.3.3"])
@pytest.mark.parametrize("file", ["gated.keras", "gated.h5"])
def test_functions_are_those_of_the_version_of_keras_that_wrote_the_file(
    folder: Path, tmp_path: Path, file: str, version: str | None
) -> None:
    from multiseg_tensorflow import reader

    path = of_version(folder / file, version, tmp_path / file)
    loaded = load(path, 1, 8, 8, 2)
    weights, images = loaded.get_weights(), keras_files.predicted(folder / "gated.keras")["images"]
    slope = 1 / 6 if version == "3.3.3" else 0.2
    expected = images * weights["gate.weight"].reshape(2) + weights["gate.bias"]
    for _ in range(2):
        expected = np.clip(slope * expected + 0.5, 0, 1)
    assert np.allclose(loaded.predict(images, None)[0], expected, atol=1e-6)
    description = reader.describe(str(path), None)
    again = forward(Topology.of(file, "", description), weights, images.transpose(0, 3, 1, 2)).output.value
    assert np.allclose(again.transpose(0, 2, 3, 1), expected, atol=1e-6)
    trained = load(path, 1, 8, 8, 2, solver={"name": "sgd"})
    trained.train_step(images, np.zeros_like(expected), 0.1)
    assert not np.array_equal(trained.get_weights()["gate.weight"], weights["gate.weight"])


def test_a_model_of_keras_1_is_refused_with_its_version(folder: Path, tmp_path: Path) -> None:
    from multiseg_tensorflow import reader

    path = of_version(folder / "gated.h5", "1.2.2", tmp_path / "old.h5")
    with pytest.raises(ModelError, match=r"old\.h5: was written by Keras 1\.2\.2.*Keras 2 and 3"):
        reader.describe(str(path), None)


def test_noise_is_that_of_training_and_layers_of_several_operations_are_one(folder: Path) -> None:
    from multiseg_tensorflow import reader

    path, made = folder / "noisy.keras", keras_files.predicted(folder / "noisy.keras")
    loaded = load(path, 1, 8, 8, 1)
    assert np.allclose(loaded.predict(made["images"], None)[0], made["expected"], atol=1e-6)
    description = reader.describe(str(path), None)
    types = [layer["type"] for layer in description["layers"]]
    assert types[:4] == ["Conv", "Elu", "GlobalMaxPool", "Flatten"]
    assert description["layers"][1]["parameters"] == {"alpha": 0.5}
    again = forward(
        Topology.of("noisy", "", description), loaded.get_weights(), made["images"].transpose(0, 3, 1, 2)
    ).output.value
    assert np.allclose(again.transpose(0, 2, 3, 1), made["expected"], atol=1e-5)
    trained = load(path, 1, 8, 8, 1, solver={"name": "sgd"})
    assert len({trained.train_step(made["images"], made["expected"], 0.0, seed) for seed in range(3)}) == 3


def test_a_last_reshape_to_rows_of_pixels_is_left_out(folder: Path) -> None:
    made = keras_files.predicted(folder / "rows.keras")
    output = load(folder / "rows.keras", 1, 8, 12, 4).predict(made["images"], None)[0]
    assert output.shape == (2, 8, 12, 4)
    assert np.allclose(output.reshape(2, 96, 4), made["expected"], atol=1e-6)


def test_models_that_do_not_fit_are_refused_by_their_output_or_layer(folder: Path) -> None:
    with pytest.raises(
        ModelError, match=r"columns\.keras: its output scores\S* has the shape \(\S*, 64, 4\); .*images"
    ) as error:
        load(folder / "columns.keras", 1, 8, 8, 4)
    with pytest.raises(ModelError, match=r"dense\.h5: its .*images \(H, W, C\) of .*12, 12") as size:
        load(folder / "dense.h5", 1, 12, 12, 1)
    with pytest.raises(
        ModelError, match=r"columns\.keras: its layers cannot process images .*12, 12, 1.*: \S"
    ) as reshape:
        load(folder / "columns.keras", 1, 12, 12, 4)
    for refusal in (error, size, reshape):
        assert "\x1b" not in str(refusal.value) and "Tensor(" not in str(refusal.value)


def test_training_is_that_of_keras(folder: Path) -> None:
    made = np.load(folder / "trained.npz")
    loaded = load(folder / "small.keras", 1, 8, 12, 1, solver={"name": "sgd"})
    assert loaded.describe()["loss"] == "l2"
    images, labels = made["draws"][:2], made["draws"][2:]
    losses = [loaded.train_step(image, label, 0.05) for image, label in zip(images, labels, strict=True)]
    assert np.allclose(losses, made["losses"], rtol=1e-5)
    weights = loaded.get_weights()
    expected = {
        name: made[name]
        for name in ("norm.gamma", "norm.beta", "norm.moving_mean", "norm.moving_variance", "last.bias")
    }
    parts = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    for name, value in expected.items():
        layer, _, part = name.partition(".")
        assert np.allclose(weights[f"{layer}.{parts.get(part, part)}"], value, rtol=1e-4, atol=1e-6), name
    assert np.allclose(weights["conv.weight"], made["conv.kernel"].transpose(3, 2, 0, 1), rtol=1e-4, atol=1e-6)


def test_dropout_depends_on_the_seed_of_the_step_and_frozen_layers_keep_their_weights(folder: Path) -> None:
    made = keras_files.predicted(folder / "model.keras")
    images, labels = made["images"], np.zeros((2, 16, 24, 3), np.float32)
    losses = []
    for seed in (1, 2, 1):
        loaded = load(folder / "model.keras", 3, 16, 24, 3, solver={"name": "sgd"}, frozen=("norm",))
        before = loaded.get_weights()
        loaded.train_step(images, labels, 0.1, seed)
        losses.append(loaded.predict(images, labels)[1])
        after = loaded.get_weights()
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        assert changed == {name for name in before if not name.startswith("norm.")}
    assert losses[0] == losses[2] != losses[1]


def test_weights_without_their_model_load_into_it(folder: Path) -> None:
    from multiseg_tensorflow import reader

    stored = reader.read_weights(str(folder / "model.h5"))
    assert kinds.kind_of(folder / "model.h5", "weights")[1].name == "Keras model"
    assert kinds.kind_of(folder / "model.weights.h5", "weights")[1].needs_network
    loaded = reader.read_weights(str(folder / "model.weights.h5"), str(folder / "model.keras"), [3, 16, 24])
    assert stored.keys() == loaded.keys()
    assert all(np.array_equal(stored[name], loaded[name]) for name in stored)
    cut = choosing.path_of(folder / "model.keras", outputs=["conv"])
    assert reader.read_weights(str(folder / "model.weights.h5"), str(cut), [3, 16, 24]).keys() == stored.keys()
    with pytest.raises(ModelError, match="numbered weights of Keras"):
        reader.read_weights(str(folder / "model.weights.h5"))


def test_code_in_files_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    from multiseg_tensorflow.keras_models import loading

    for file in ("lambda.keras", "lambda.h5"):
        with pytest.raises(
            ModelError, match=rf"{file}: its layer 'double' is of the class 'Lambda', .* does not run code"
        ):
            loading.load(folder / file)
    with zipfile.ZipFile(folder / "small.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def refused(change: Any, message: str) -> None:
        config = json.loads(members["config.json"])
        change(config)
        file = tmp_path / "changed.keras"
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, json.dumps(config) if name == "config.json" else content)
        with pytest.raises(ModelError, match=rf"changed.keras: {message}"):
            loading.load(file)

    marker = tmp_path / "was_run"
    layer = {
        "module": "builtins",
        "class_name": "eval",
        "config": {"source": f"open({str(marker)!r}, 'w')"},
        "registered_name": None,
    }
    refused(lambda config: config["config"]["layers"].append(layer), "its layer '.*' is of the class 'eval'")
    last = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    refused(
        lambda config: config["config"]["layers"][-1]["config"].update(activation=last),
        "the activation .* is not one of Keras",
    )
    refused(
        lambda config: config["config"]["layers"][-1]["config"].update(units=last),
        "its layer 'last' is of the class 'system'",
    )
    refused(
        lambda config: config["config"]["layers"][-1].update(registered_name="my>Conv2D"),
        "its layer 'last' .* a class of the program",
    )
    refused(
        lambda config: config.update(class_name="MyModel", module="my"), "its model is an object of the class 'MyModel'"
    )
    refused(
        lambda config: config["config"]["layers"][-1]["config"].update(data_format="channels_first"),
        "its layer 'last' has data_format='channels_first'",
    )
    refused(
        lambda config: config["config"]["layers"][-1]["config"].update(filters=7),
        "loading its weights raised ValueError",
    )
    assert not marker.exists()


def test_damaged_and_inflated_files_are_refused(folder: Path, tmp_path: Path) -> None:
    import h5py
    from multiseg_tensorflow.keras_models import loading

    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", " " * (1 << 24))
        archive.writestr("model.weights.h5", b"")
    with zipfile.ZipFile(tmp_path / "weights.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", hdf5.SIGNATURE)
    (tmp_path / "cut.keras").write_bytes((folder / "small.keras").read_bytes()[:3000])
    with h5py.File(tmp_path / "declares.h5", "w") as file:
        file.attrs["model_config"] = "{}"
        file.create_group("model_weights").create_dataset("kernel", (1 << 20, 1 << 20), np.float32, chunks=(64, 64))
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file.attrs["model_config"] = "{}"
        file.create_group("model_weights")["kernel"] = h5py.ExternalLink("other.h5", "/secret")
    for name, message in (
        ("bomb.keras", "config.json in it expands to"), ("cut.keras", "is not a complete Keras archive"),
        ("declares.h5", "declares arrays of"), ("links.h5", "is a link to another file"),
        ("weights.keras", "model.weights.h5 in it: is not a complete HDF5 file"),
    ):  # fmt: skip
        with pytest.raises(ModelError, match=f"{name}: .*{message}|{name}: {message}"):
            loading.load(tmp_path / name)


@pytest.mark.needs("torch")
def test_weights_move_to_pytorch_to_the_bit(folder: Path, tmp_path: Path) -> None:
    import runpy

    import torch

    made = keras_files.predicted(folder / "model.keras")
    convert(folder / "model.keras", "pt", tmp_path / "net.pt", with_network=tmp_path / "net.py")
    module = runpy.run_path(str(tmp_path / "net.py"))["network"]({"inputShape": (3, 16, 24)})["model"].eval()
    module.load_state_dict(torch.load(tmp_path / "net.pt", weights_only=True))
    with torch.no_grad():
        output = module(torch.from_numpy(made["images"].transpose(0, 3, 1, 2).copy())).numpy()
    assert np.allclose(output.transpose(0, 2, 3, 1), made["expected"], atol=1e-6)
    shape, model = (3, 16, 24), folder / "model.keras"
    convert(tmp_path / "net.pt", "tf", tmp_path / "back", model, source_network=tmp_path / "net.py", input_shape=shape)
    first = reading.read_neutral(folder / "model.h5").weights
    last = reading.read_neutral(tmp_path / "back", model, shape).weights
    assert all(np.array_equal(first[name], last[name]) for name in describe(model).weights)
