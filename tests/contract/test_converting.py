"""Weights through all three frameworks and back: what is written loads there by the framework's own means, and computes the
same of the same picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format
from multiseg_caffe import deploy, prototxt

import multiseg
from helpers import alone, exported, pycaffe, small_models, zoo
from helpers.exported import random_weights
from helpers.nightly import nightly
from multiseg import backend as registry
from multiseg.backend import package_folder
from multiseg.conversion import Converted
from multiseg.conversion.frameworks import Frameworks
from multiseg.errors import ModelError
from multiseg.model_files import weights_file
from multiseg.model_files.reading import describe, read_weights
from multiseg.model_files.writing import write_weights

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")

Array = np.ndarray[Any, Any]

# batch normalisation, groups, a deconvolution and dense layers over what was an image
RICH = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 12 dim: 12 } } }
layer { name: "bn0" type: "BatchNorm" bottom: "data" top: "n0" }
layer { name: "conv1" type: "Convolution" bottom: "n0" top: "a"
        convolution_param { num_output: 6 kernel_size: 3 bias_term: false } }
layer { name: "bn1" type: "BatchNorm" bottom: "a" top: "b" }
layer { name: "bn1_scale" type: "Scale" bottom: "b" top: "b" scale_param { bias_term: true } }
layer { name: "block/2" type: "Convolution" bottom: "b" top: "d" convolution_param { num_output: 8 kernel_size: 3 group: 2 } }
layer { name: "up" type: "Deconvolution" bottom: "d" top: "f" convolution_param { num_output: 4 kernel_size: 2 stride: 2 } }
layer { name: "fc1" type: "InnerProduct" bottom: "f" top: "g" inner_product_param { num_output: 20 transpose: true } }
layer { name: "relu" type: "ReLU" bottom: "g" top: "g" }
layer { name: "fc2" type: "InnerProduct" bottom: "g" top: "h" inner_product_param { num_output: 7 } }
"""
# images of colours that are made of images of colours
COLOURS = """
layer { name: "data" type: "Data" top: "data" data_param { batch_size: 2 } }
layer { name: "label" type: "Data" top: "label" data_param { batch_size: 2 } exclude { stage: "deploy" } }
layer { name: "own" type: "Convolution" bottom: "data" top: "a" convolution_param { num_output: 3 group: 3 kernel_size: 1 } }
layer { name: "conv" type: "Convolution" bottom: "a" top: "b" convolution_param { num_output: 5 kernel_size: 2 stride: 2 } }
layer { name: "relu" type: "ReLU" bottom: "b" top: "b" }
layer { name: "up" type: "Deconvolution" bottom: "b" top: "c" convolution_param { num_output: 3 kernel_size: 2 stride: 2 } }
layer { name: "sum" type: "Eltwise" bottom: "c" bottom: "data" top: "d" }
layer { name: "loss" type: "EuclideanLoss" bottom: "d" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""
WRITTEN = {"rich": RICH, "colours": COLOURS}
NETS = {
    "fcn": (1, 32, 32), "rich": (3, 12, 12), "colours": (3, 8, 8), **{name: shape for name, (shape, _) in zoo.SHAPES.items()},
}  # fmt: skip
LARGE = ["fcn", "alexnet", "fcn8s"]

TORCH = """
import importlib.util, json, sys, numpy, torch
for job in json.load(open(sys.argv[1])):
    spec = importlib.util.spec_from_file_location("net", job["net"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.network({"inputShape": job["shape"]})["model"]
    model.load_state_dict(torch.load(job["weights"], weights_only=True), strict=True)
    with torch.no_grad():
        numpy.save(job["out"], model.eval()(torch.from_numpy(numpy.load(job["images"]))).numpy())
"""
TENSORFLOW = """
import json, sys, numpy
import tensorflow.compat.v1 as tf
for job in json.load(open(sys.argv[1])):
    names = tf.train.load_checkpoint(job["weights"]).get_variable_to_shape_map()
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.train.import_meta_graph(job["weights"] + ".meta").restore(session, job["weights"])
        assert set(names) == {variable.op.name for variable in tf.global_variables()}
        last = [op for op in graph.get_operations() if op.name.startswith("model/")][-1]
        images = numpy.load(job["images"]).transpose(0, 2, 3, 1)
        made = session.run(last.outputs[0], {"x:0": images})
        numpy.save(job["out"], made.transpose(0, 3, 1, 2) if made.ndim == 4 else made)
"""


@dataclass(frozen=True)
class Moved:
    """A network's files, its pictures in RGB, and what became of its weights on the way to pt, tf and back."""

    weights: dict[str, Array]
    deploy: Path
    files: dict[str, Path]  # by framework
    steps: list[Converted]
    images: Array
    shape: tuple[int, int, int]


@pytest.fixture(scope="module", autouse=True)
def processes() -> Iterator[Frameworks]:
    """The same processes for all conversions here."""

    class Kept(Frameworks):
        def __exit__(self, *_: object) -> None:
            pass

    kept = Kept()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("multiseg.conversion.conversion.Frameworks", lambda: kept)
        yield kept
    kept.close()


@pytest.fixture(scope="module")
def frameworks() -> Iterator[exported.Frameworks]:
    found = exported.Frameworks()
    yield found
    found.close()


@pytest.fixture(scope="module")
def moved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Moved]:
    """The networks that the selected tests use: the large ones are for the night."""
    selected = {item.callspec.params.get("net") for item in request.session.items if hasattr(item, "callspec")}
    found = {}
    for name, shape in NETS.items():
        if name in LARGE and name not in selected:
            continue
        folder = tmp_path_factory.mktemp(name)
        file = package_folder("multiseg_models") / "fcn.prototxt" if name == "fcn" else zoo.NETS / f"{name}.prototxt"
        if name in WRITTEN:
            file = folder / "net.prototxt"
            file.write_text(WRITTEN[name])
        topology = describe(file, shape)
        weights, model = random_weights(topology), folder / "first.caffemodel"
        write_weights(registry.get("caffe"), model, weights, file, shape)
        own = {each: folder / f"net_{each}.py" for each in ("torch", "tensorflow")}
        pt, tf, back = folder / "w.pt", folder / "w.ckpt", folder / "w.caffemodel"
        steps = [
            multiseg.convert(model, "pt", pt, source_network=file, with_network=own["torch"], input_shape=shape),
            multiseg.convert(
                pt, "tf", tf, source_network=own["torch"], with_network=own["tensorflow"], input_shape=shape
            ),
            multiseg.convert(tf, "caffemodel", back, network=file, source_network=own["tensorflow"], input_shape=shape),
        ]
        assert {path.name for path in folder.iterdir()} - {"net.prototxt"} == {
            "first.caffemodel", "w.pt", "w.caffemodel", "net_torch.py", "net_tensorflow.py", "w.ckpt.index", "w.ckpt.meta",
            "w.ckpt.data-00000-of-00001",
        }  # fmt: skip
        images = np.random.default_rng(4).standard_normal((2, *shape)).astype(np.float32)
        files = {"caffe": back, "torch": pt, "tensorflow": tf}
        found[name] = Moved(weights, deployed(file, shape, folder), files, steps, images, shape)
    return found


def deployed(file: Path, shape: tuple[int, int, int], folder: Path) -> Path:
    """The network as Caffe predicts with it, two images at a time."""
    found = deploy.deployed(prototxt.read(str(file)), str(file))
    net = prototxt.of_layers(found.net.name, [])
    net.layer.add(name=found.image, type="Input", top=[found.image]).input_param.shape.add(dim=(2, *shape))
    net.layer.extend(found.net.layer)
    path = folder / "deploy.txt"
    path.write_text(text_format.MessageToString(net))
    return path


@pytest.fixture(scope="module")
def outputs(moved: dict[str, Moved], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Array]]:
    """What each framework alone, without multiseg, makes of the pictures with the file written for it."""
    folder = tmp_path_factory.mktemp("outputs")
    found: dict[str, dict[str, Array]] = {name: {} for name in moved}
    for backend, code in (("torch", TORCH), ("tensorflow", TENSORFLOW)):
        jobs = []
        for name, each in moved.items():
            np.save(folder / f"{name}.npy", each.images)
            net = each.files[backend].with_name(f"net_{backend}.py")
            paths = {"net": net, "weights": each.files[backend], "images": folder / f"{name}.npy"}
            out = folder / f"{name}-{backend}.npy"
            jobs.append({key: str(path) for key, path in {**paths, "out": out}.items()} | {"shape": each.shape})
        alone.run(backend, code, jobs, folder)
        for name in moved:
            found[name][backend] = np.load(folder / f"{name}-{backend}.npy")
    caffes = pycaffe.run(
        folder,
        [
            {"net": each.deploy, "weights": path, "feed": {"data": bgr(each.images)}}
            for each in moved.values()
            for path in (each.files["caffe"], each.files["caffe"].with_name("first.caffemodel"))
        ],
    )
    for (name, each), made, first in zip(moved.items(), caffes[::2], caffes[1::2], strict=True):
        blob = deploy.deployed(prototxt.read(str(each.deploy)), "deploy").outputs[0]
        found[name]["caffe"], found[name]["first"] = made[f"data/{blob}"], first[f"data/{blob}"]
    return found


def bgr(images: Array) -> Array:
    return np.ascontiguousarray(images[:, ::-1]) if images.shape[1] == 3 else images


@pytest.mark.parametrize("net", nightly(NETS, LARGE))
def test_weights_come_back_to_the_bit(net: str, moved: dict[str, Moved]) -> None:
    found = read_weights(moved[net].files["caffe"])
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in moved[net].weights.items()
    }
    colours = {
        "rich": {"bn0.running_mean", "bn0.running_var", "conv1.weight"}, "fcn8s": {"conv1.weight"},
        "colours": {"own.weight", "own.bias", "conv.weight", "up.weight", "up.bias"},
    }  # fmt: skip
    there, on, back = ({step.matched[name] for name in step.reversed} for step in moved[net].steps)
    if NETS[net][0] == 1:
        assert not there and not on and not back
    else:
        assert len(there) == len(back) == len(colours.get(net, {"conv1.weight"})) and not on
    assert there == colours.get(net, there)


@pytest.mark.parametrize("net", nightly(NETS, LARGE))
def test_every_framework_makes_the_same_of_the_same_picture(net: str, outputs: dict[str, dict[str, Array]]) -> None:
    expected = outputs[net]["first"]
    assert np.ptp(expected) > 0
    for backend in ("caffe", "torch", "tensorflow"):
        made = outputs[net][backend].reshape(expected.shape)
        if net == "colours" and backend != "caffe":
            made = made[:, ::-1]
        # some ten layers of sums of up to 8192 float32 products, near 1 and random in sign
        assert np.abs(made - expected).max() <= 2e-5 * np.abs(expected).max(), backend


@pytest.mark.parametrize("net", nightly(["lenet", "alexnet", "inception", "fcn8s"], ["alexnet", "fcn8s"]))
def test_opencv_reads_the_caffemodel(net: str, moved: dict[str, Moved], outputs: dict[str, dict[str, Array]]) -> None:
    opencv = cv2.dnn.readNetFromCaffe(str(moved[net].deploy), str(moved[net].files["caffe"]))
    opencv.setInput(bgr(moved[net].images))
    expected = outputs[net]["first"]
    assert np.abs(opencv.forward().reshape(expected.shape) - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_checkpoint_is_read_by_the_graph_beside_it_or_by_its_network(moved: dict[str, Moved], tmp_path: Path) -> None:
    each = moved["lenet"]
    by_graph = multiseg.convert(each.files["tensorflow"], "safetensors", tmp_path / "w.safetensors")
    assert by_graph.channel_order == "RGB"
    dense = [name for name in by_graph.matched if read_weights(by_graph.path)[name].ndim == 2]
    assert all(np.array_equal(read_weights(by_graph.path)[name], each.weights[name]) for name in dense) and dense
    bare = tmp_path / "w.ckpt"
    for path in each.files["tensorflow"].parent.glob("w.ckpt.*"):
        if path.suffix != ".meta":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ModelError, match=r"seem to be a flattened image"):
        multiseg.convert(bare, "safetensors", tmp_path / "w.safetensors")
    by_network = multiseg.convert(
        bare, "safetensors", tmp_path / "w.safetensors", input_shape=each.shape,
        source_network=each.files["tensorflow"].with_name("net_tensorflow.py"),
    )  # fmt: skip
    assert all(np.array_equal(read_weights(by_network.path)[name], each.weights[name]) for name in dense)


def test_without_any_network_names_stay_and_dense_layers_over_images_are_refused(
    moved: dict[str, Moved], tmp_path: Path
) -> None:
    first = moved["autoencoder"].files["caffe"]
    multiseg.convert(first, "pt", tmp_path / "a.pt")
    multiseg.convert(tmp_path / "a.pt", "tf", tmp_path / "a.ckpt")
    multiseg.convert(tmp_path / "a.ckpt", "caffemodel", tmp_path / "a.caffemodel")
    np.testing.assert_equal(dict(read_weights(tmp_path / "a.caffemodel")), moved["autoencoder"].weights)
    feed = {"data": moved["autoencoder"].images}
    made, expected = pycaffe.run(
        tmp_path,
        [
            {"net": moved["autoencoder"].deploy, "weights": path, "feed": feed}
            for path in (tmp_path / "a.caffemodel", first)
        ],
    )
    np.testing.assert_equal(made, expected)
    with pytest.raises(ModelError, match=r"takes \d+ inputs, which seem to be a flattened image; .*network=FILE"):
        multiseg.convert(moved["lenet"].files["torch"], "tf", tmp_path / "b.ckpt")
    assert not list(tmp_path.glob("b.*")) and not list(tmp_path.glob(".*"))


def test_other_files_of_the_same_network(moved: dict[str, Moved], tmp_path: Path) -> None:
    """By structure, between files that name their layers as they like: inception's of TensorFlow and of Torch7."""
    shape = NETS["inception"]
    source, target = zoo.NETS / "inception.prototxt", zoo.NETS / "inception_tensorflow.py"
    found = multiseg.convert(
        moved["inception"].files["caffe"], "tf", tmp_path / "w.ckpt", target, source_network=source, input_shape=shape
    )
    assert len(found.matched) == len(moved["inception"].weights) and len(found.reversed) == 1
    back = multiseg.convert(
        tmp_path / "w.ckpt", "caffemodel", tmp_path / "w.caffemodel", source, source_network=target, input_shape=shape
    )
    assert back.how in ("structure", "name")
    np.testing.assert_equal(dict(read_weights(back.path)), moved["inception"].weights)
    with pytest.raises(ModelError, match=r"inception\.prototxt and lenet_tensorflow\.py are not the same network"):
        multiseg.convert(
            moved["inception"].files["caffe"], "tf", tmp_path / "o.ckpt", zoo.NETS / "lenet_tensorflow.py",
            source_network=source, input_shape=shape,
        )  # fmt: skip
    assert not list(tmp_path.glob("o.*"))


def test_what_a_framework_says_in_several_words_is_found_by_name_where_it_was_exported(
    tmp_path: Path, frameworks: exported.Frameworks
) -> None:
    """TensorFlow has no deconvolution in groups: its file, described, is another network."""
    source, shape, model = tmp_path / "net.prototxt", (3, 12, 12), tmp_path / "a.caffemodel"
    slope = 'layer { name: "a/s" type: "PReLU" bottom: "d" top: "s" }'
    source.write_text(
        RICH.replace('layer { name: "up"', slope + '\nlayer { name: "up"').replace(
            'bottom: "d" top: "f" convolution_param {', 'bottom: "s" top: "f" convolution_param { group: 2'
        )
    )
    weights = random_weights(describe(source))
    write_weights(registry.get("caffe"), model, weights, source, shape)
    own, ckpt, back = tmp_path / "net.py", tmp_path / "w.ckpt", tmp_path / "b.caffemodel"
    found = multiseg.convert(model, "tf", ckpt, source_network=source, with_network=own)
    assert found.how == "name" and found.matched["a.s.weight"] == "a/s.weight" and len(found.reversed) == 3
    assert set(found.matched.values()) == set(weights) and not found.left_out and not found.unused
    images = np.random.default_rng(4).standard_normal((2, *shape)).astype(np.float32)
    loaded = {name.replace("_scale.", "."): value for name, value in read_weights(ckpt).items()}  # as it names them
    made = frameworks.predict("tensorflow", own, describe(source), loaded, images)
    feed = {"net": deployed(source, shape, tmp_path), "weights": model, "feed": {"data": bgr(images)}}
    expected = pycaffe.run(tmp_path, [feed])[0]["data/h"]
    assert np.abs(made - expected).max() <= 2e-5 * np.abs(expected).max()
    given: dict[str, Any] = {"network": source, "source_network": own, "input_shape": shape}
    with pytest.raises(
        ModelError,
        match=r"net\.py and net\.prototxt are not the same network: up\.split .*ConvTranspose in net\.prototxt",
    ):
        multiseg.convert(ckpt, "caffemodel", back, **given)
    pairs = {name: old for old, name in found.matched.items()}
    multiseg.convert(ckpt, "caffemodel", back, **given, map={new: old for old, new in pairs.items()})
    np.testing.assert_equal(dict(read_weights(back)), weights)


def test_a_run_goes_over_with_its_network(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    model = small_models.write("torch", tmp_path / "torch")
    job = multiseg.Job(
        dataset=dataset, backend="torch", model=model, epochs=1, solver="adam", learning_rate=1e-3, loss="l2", seed=1
    )
    with job.train(tmp_path / "run", progress=False) as run:
        own = run.worker().call("get_weights")
        same = multiseg.convert(run, "pt", tmp_path / "w.pt")
        np.testing.assert_equal(dict(read_weights(same.path)), own)
        with pytest.raises(
            multiseg.MultisegError, match=r"is a run, which includes its network; leave source_network out"
        ):
            multiseg.convert(run, "pt", tmp_path / "w.pt", source_network=model)
        with pytest.raises(multiseg.MultisegError, match=r"is a run with images of \(1, 32, 32\), not \(1, 16, 16\)"):
            multiseg.convert(run, "pt", tmp_path / "w.pt", input_shape=(1, 16, 16))
        network = tmp_path / "n.prototxt"
        found = multiseg.convert(run, "caffemodel", tmp_path / "w.caffemodel", with_network=network)
        assert found.network == network and describe(network, (1, 32, 32)) == run.topology
        np.testing.assert_equal(dict(read_weights(found.path)), own)
    kept = weights_file.read(multiseg.convert(tmp_path / "run", "safetensors", tmp_path / "w.safetensors").path)
    assert kept.solver is not None and kept.solver["solver"] == "adam" and kept.channel_order == "RGB"
    assert {name.partition("/")[2] for name in kept.state} == set(own) == set(kept.weights)
    with pytest.raises(multiseg.MultisegError, match=r"has no snapshot 7\.0"):
        multiseg.convert(tmp_path / "run", "pt", tmp_path / "w.pt", snapshot=7.0)
