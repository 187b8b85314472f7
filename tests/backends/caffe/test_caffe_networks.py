"""Caffe's files as Caffe itself takes them: shapes, earlier syntaxes, weights, losses of other forks, the whole zoo."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format
from multiseg_caffe import deploy, losses, proto, prototxt
from multiseg_caffe.describing import placing

import multiseg
from helpers import pycaffe, random_nets, zoo
from multiseg import describe
from multiseg.errors import ModelError
from multiseg.model_files.reading import read_weights

pytestmark = pytest.mark.needs("caffe")


def written(path: Path, message: Any) -> Path:
    path.write_text(text_format.MessageToString(message))
    return path


def deployed(name: str, folder: Path) -> Path:
    """The deploy file of a network in the zoo, with its input, as OpenCV and Caffe's users have it."""
    source = zoo.NETS / f"{name}.prototxt"
    found = deploy.deployed(prototxt.read(str(source)), str(source))
    shape = (3, *zoo.SHAPES[name][0])
    net = proto.NetParameter(input=[found.image], input_dim=shape, layer=found.net.layer)
    return written(folder / f"{name}_deploy.prototxt", net)


def test_the_messages_are_caffes_own() -> None:
    """caffe.desc, with the fields and messages of forks that the recipe adds, is what was compiled into pycaffe."""
    code = (
        "from caffe.proto import caffe_pb2\n"
        "from google.protobuf import descriptor_pb2\n"
        "import multiseg_caffe.proto as ours, numpy, pathlib\n"  # in one process: the two do not collide
        "file = pathlib.Path(ours.__file__).with_name('messages') / 'caffe.desc'\n"
        "made = descriptor_pb2.FileDescriptorSet.FromString(file.read_bytes()).file[0]\n"
        "theirs = descriptor_pb2.FileDescriptorProto()\n"
        "caffe_pb2.DESCRIPTOR.CopyToProto(theirs)\n"
        "added = {name: list(fields.items()) for name, fields in ours.LAYER_FIELDS.items()}\n"
        "for message in list(theirs.message_type):\n"
        "    numbers = {name: number for name, (kind, number) in added.get(message.name, [])}\n"
        "    fields = [field for field in message.field if field.name in numbers]\n"
        "    assert {field.name: field.number for field in fields} == numbers\n"
        "    for field in fields:\n"
        "        default = ours.DEFAULTS.get(f'{message.name}.{field.name}', '')\n"
        "        assert field.default_value == default or numpy.float32(field.default_value) == numpy.float32(default), field\n"
        "    if message.name in added and message.name != 'LayerParameter':\n"
        "        assert len(fields) == len(message.field)\n"
        "        theirs.message_type.remove(message)\n"
        "    for field in fields:\n"
        "        if message.name == 'LayerParameter':\n"
        "            message.field.remove(field)\n"
        "def plain(messages):\n"
        "    for message in messages:\n"
        "        for field in message.field:\n"
        "            field.ClearField('json_name')\n"
        "            if field.type == field.TYPE_FLOAT and field.default_value:\n"
        "                field.default_value = str(numpy.float32(field.default_value))\n"
        "        plain(message.nested_type)\n"
        "plain(made.message_type); plain(theirs.message_type)\n"
        "assert made == theirs\n"
    )
    pycaffe.python(code)


def test_random_networks_have_the_shapes_that_caffe_gives_them(tmp_path: Path) -> None:
    nets = []
    for seed in range(60):
        nets.append(tmp_path / f"{seed}.prototxt")
        nets[-1].write_text(random_nets.network(seed, batch=2))
    made = pycaffe.run(tmp_path, [{"net": net, "forward": False} for net in nets])
    types = set()
    for net, caffes in zip(nets, made, strict=True):
        placed = placing.infer(prototxt.read(str(net)), str(net), {})
        ours = {f"data/{top}": shape for here in placed for top, shape in zip(here.layer.top, here.tops, strict=True)}
        ours |= {f"weights/{here.layer.name}/{i}": s for here in placed for i, s in enumerate(here.weights)}
        theirs = {name: array.shape for name, array in caffes.items() if "_split_" not in name}
        assert ours == theirs, net
        types |= {here.layer.type for here in placed}
    assert types >= set(random_nets.KINDS)


def test_descriptions_have_the_shapes_that_caffe_gives(tmp_path: Path) -> None:
    nets = [deployed(name, tmp_path) for name in zoo.SHAPES]
    for seed in range(60):
        nets.append(tmp_path / f"{seed}.prototxt")
        nets[-1].write_text(random_nets.network(seed, batch=1))
    for net, caffes in zip(nets, pycaffe.run(tmp_path, [{"net": n, "forward": False} for n in nets]), strict=True):
        topology = describe(net)
        final = {top: layer.name for layer in prototxt.read(str(net)).layer for top in layer.top}
        made = {layer.name: layer for layer in topology.layers}
        for blob, name in final.items():
            if name in made and len(made[name].outputs) == 1:
                assert made[name].shapes[0] == caffes[f"data/{blob}"].shape[1:], (net, name)
        ours = sum(int(np.prod(shape)) for shape in topology.weights.values())
        factors = sum(layer.type == "BatchNormalization" for layer in topology.layers)
        assert ours + factors == sum(array.size for key, array in caffes.items() if key.startswith("weights/"))


@pytest.mark.needs("caffe", "torch")
def test_descriptions_and_weights_mean_what_caffe_computes(tmp_path: Path) -> None:
    """Random networks, computed by Caffe; and from their description and neutral weights alone, by PyTorch in float64."""
    from helpers.evaluate import TYPES, evaluate

    jobs = []
    for seed in range(100, 180):
        net, numbers = tmp_path / f"{seed}.prototxt", np.random.default_rng(seed)
        net.write_text(random_nets.network(seed, batch=1))
        feed = {"data": numbers.normal(size=(1, *describe(net).input_shape)).astype("f")}
        jobs.append({"net": net, "seed": seed, "save": net.with_suffix(".caffemodel"), "feed": feed})
    compared: dict[str, int] = {}
    for job, caffes in zip(jobs, pycaffe.run(tmp_path, jobs), strict=True):
        topology = describe(job["net"])
        last = {top: layer.name for layer in prototxt.read(str(job["net"])).layer for top in layer.top}
        theirs = {name: caffes[f"data/{blob}"] for blob, name in last.items()}  # where nothing overwrote it
        weights = read_weights(job["save"]) if topology.weights else {}
        for layer, ours in evaluate(topology, weights, job["feed"]["data"], theirs):
            expected = theirs.get(layer.name)
            if not np.isfinite(ours).all() or np.abs(ours).max() > 1e6:
                break  # the logarithm of something negative, or the like
            if expected is None:
                continue
            scale = max(np.abs(expected).max(), 1)
            assert np.allclose(ours, expected, rtol=1e-3, atol=1e-4 * scale), (job["net"], layer)
            compared[layer.type] = compared.get(layer.type, 0) + 1
    assert set(compared) >= set(TYPES) - {"Split", "Clip", "Flatten"}


V1 = """
name: "old"
input: "data"
input_dim: 2
input_dim: 3
input_dim: 12
input_dim: 12
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
         convolution_param { num_output: 4 kernel_size: 3 pad: 1 group: 1 } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" relu_param { negative_slope: 0.1 } }
layers { name: "norm" type: LRN bottom: "conv" top: "norm" lrn_param { local_size: 3 alpha: 0.1 } }
layers { name: "pool" type: POOLING bottom: "norm" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layers { name: "up" type: DECONVOLUTION bottom: "pool" top: "up" blobs_lr: 0 param: "shared" blob_share_mode: PERMISSIVE
         convolution_param { num_output: 2 kernel_size: 4 stride: 2 bias_term: false } }
layers { name: "fc" type: INNER_PRODUCT bottom: "up" top: "fc" inner_product_param { num_output: 5 } }
layers { name: "tanh" type: TANH bottom: "fc" top: "tanh" }
layers { name: "abs" type: ABSVAL bottom: "tanh" top: "abs" }
layers { name: "drop" type: DROPOUT bottom: "abs" top: "drop" dropout_param { dropout_ratio: 0.3 } }
layers { name: "power" type: POWER bottom: "drop" top: "power" power_param { scale: 2 shift: 1 } }
layers { name: "flat" type: FLATTEN bottom: "power" top: "flat" }
layers { name: "prob" type: SOFTMAX bottom: "flat" top: "prob" include { phase: TEST } }
"""


def test_the_older_syntax_is_brought_up_to_date_as_caffe_does(tmp_path: Path) -> None:
    (tmp_path / "v1.prototxt").write_text(V1)
    pycaffe.run(tmp_path, [{"net": tmp_path / "v1.prototxt", "save": tmp_path / "v1.caffemodel"}])
    theirs = proto.NetParameter.FromString((tmp_path / "v1.caffemodel").read_bytes())  # says what Caffe made of it
    ours = prototxt.read(str(tmp_path / "v1.prototxt"))
    for layer in theirs.layer:
        layer.ClearField("blobs")
        layer.ClearField("phase")
    assert list(theirs.layer) == list(ours.layer)


def test_weights_in_the_older_syntax_are_read_as_caffe_reads_them(tmp_path: Path) -> None:
    """Its arrays have four dimensions, whatever they are: num, channels, height, width."""
    shapes = {"conv": [(4, 3, 3, 3), (1, 1, 1, 4)], "fc": [(1, 1, 5, 392), (1, 1, 1, 5)]}
    numbers, net = np.random.default_rng(3), proto.NetParameter(name="old")
    for name, kind in (("conv", "CONVOLUTION"), ("fc", "INNER_PRODUCT")):
        layer = net.layers.add(name=name, type=proto.V1LayerParameter.LayerType.Value(kind), bottom=["x"], top=["y"])
        for num, channels, height, width in shapes[name]:
            data = numbers.normal(size=num * channels * height * width)
            layer.blobs.add(num=num, channels=channels, height=height, width=width, data=data)
    (tmp_path / "v1.caffemodel").write_bytes(net.SerializeToString())
    (tmp_path / "v1.prototxt").write_text(V1)
    (caffes,) = pycaffe.run(tmp_path, [{"net": tmp_path / "v1.prototxt", "weights": tmp_path / "v1.caffemodel"}])
    ours = read_weights(tmp_path / "v1.caffemodel")
    assert list(ours) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
    for index, name in enumerate(ours):
        theirs = caffes[f"weights/{name.split('.')[0]}/{index % 2}"]
        assert ours[name].shape == theirs.shape
        assert np.array_equal(ours[name], theirs)


NORMALISED = """
input: "data" input_shape { dim: 4 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 6 kernel_size: 3 } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" }
layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { bias_term: true } }
layer { name: "prelu" type: "PReLU" bottom: "bn" top: "bn" prelu_param { channel_shared: true } }
layer { name: "fc" type: "InnerProduct" bottom: "bn" top: "fc" inner_product_param { num_output: 5 transpose: true } }
layer { name: "loss" type: "EuclideanLoss" bottom: "fc" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""


def test_weights_have_their_neutral_meaning(tmp_path: Path) -> None:
    """BatchNorm's mean and variance are not Caffe's sums; a transposed InnerProduct is (outputs, inputs) as any other."""
    (tmp_path / "net.prototxt").write_text(NORMALISED)
    deploy_file = written(tmp_path / "deploy.prototxt", deployed_of(tmp_path / "net.prototxt", (4, 3, 8, 8)))
    job = {"net": deploy_file, "seed": 4, "save": tmp_path / "net.caffemodel"}
    (caffes,) = pycaffe.run(tmp_path, [job])
    weights = read_weights(tmp_path / "net.caffemodel")
    shapes = {name: tuple(array.shape) for name, array in weights.items()}
    assert shapes == describe(tmp_path / "net.prototxt").weights
    mean, variance, factor = (caffes[f"weights/bn/{i}"] for i in range(3))
    assert np.allclose(weights["bn.running_mean"], mean / factor, rtol=1e-6)
    assert np.allclose(weights["bn.running_var"], variance / factor, rtol=1e-6)
    assert np.array_equal(weights["fc.weight"], caffes["weights/fc/0"].T)
    assert np.array_equal(weights["prelu.weight"], caffes["weights/prelu/0"].reshape(1))

    weights["bn.running_var"] = np.abs(weights["bn.running_var"]) + 1
    worker = zoo.load("caffe", tmp_path / "net.prototxt", (3, 8, 8), (5, 1, 1))
    with worker:
        worker.call("set_weights", weights=weights)
        back = worker.call("get_weights")
        features = np.random.default_rng(2).normal(size=(4, 3, 8, 8)).astype("f")
        output = worker.call("predict", features=features, labels=None)[0]
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in weights.items()}
    assert np.allclose(output.reshape(4, 5), normalised(features, weights), rtol=1e-4, atol=1e-4)


def deployed_of(path: Path, shape: tuple[int, ...]) -> Any:
    found = deploy.deployed(prototxt.read(str(path)), str(path))
    return proto.NetParameter(input=[found.image], input_dim=shape, layer=found.net.layer)


def normalised(x: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """NORMALISED in numpy, float64."""
    w = {name: array.astype(np.float64) for name, array in w.items()}
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float64), (3, 3), axis=(2, 3))
    y = np.einsum("nchwij,ocij->nohw", windows, w["conv.weight"]) + w["conv.bias"][:, None, None]
    y = (y - w["bn.running_mean"][:, None, None]) / np.sqrt(w["bn.running_var"][:, None, None] + 1e-5)
    y = y * w["scale.weight"][:, None, None] + w["scale.bias"][:, None, None]
    y = np.where(y > 0, y, w["prelu.weight"][0] * y)
    return y.reshape(len(y), -1) @ w["fc.weight"].T + w["fc.bias"]


@pytest.mark.parametrize("name", zoo.SHAPES)
def test_a_users_network_trains_and_predicts_as_opencv_does(name: str, tmp_path: Path) -> None:
    """One step forward and back in Caffe; then OpenCV's own importer of prototxt and caffemodel is the reference."""
    batch = zoo.batch(name)
    with zoo.load("caffe", zoo.NETS / f"{name}.prototxt", *zoo.SHAPES[name]) as worker:
        topology = describe(zoo.NETS / f"{name}.prototxt", zoo.SHAPES[name][0])
        assert {key: tuple(shape) for key, shape in worker.described["parameters"].items()} == topology.weights
        before = worker.call("get_weights")
        for layer in topology.layers:
            if layer.type == "ConvTranspose" and layer.name.startswith("upscore"):
                before[f"{layer.name}.weight"] = zoo.bilinear(5, layer.parameters["kernel_shape"][0])
        worker.call("set_weights", weights=before)
        first = worker.call("train_step", **batch, rate=0.01)
        after = worker.call("get_weights")
        still = {key for key in before if np.array_equal(before[key], after[key])}
        assert still == {key for key in before if key.startswith("upscore")}  # lr_mult 0
        worker.call("save", folder=str(tmp_path))
        output, loss, _ = worker.call("predict", features=batch["features"], labels=batch["labels"])
    assert np.isfinite(loss) and loss != first

    caffemodel = tmp_path / "network.caffemodel"
    assert {k: v.tobytes() for k, v in read_weights(caffemodel).items()} == {k: v.tobytes() for k, v in after.items()}
    opencv = cv2.dnn.readNetFromCaffe(str(deployed(name, tmp_path)), str(caffemodel))
    opencv.setInput(batch["features"])
    expected = opencv.forward()
    assert np.abs(output.reshape(expected.shape) - expected).max() < 1e-4 * max(np.abs(expected).max(), 1)


def loss_net(text: str, tensors: dict[str, np.ndarray], path: Path) -> Path:
    net = proto.NetParameter()
    for name, tensor in tensors.items():
        net.layer.add(name=name, type="Input", top=[name]).input_param.shape.add(dim=tensor.shape)
    text_format.Merge(text, net)
    placing.infer(net, "net", {})
    native = losses.with_native(net)
    native.force_backward = True
    return written(path, native)


def smooth(x: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Smooth L1 and its derivative, as they are written."""
    near = np.abs(x) < 1 / sigma**2
    return np.where(near, (sigma * x) ** 2 / 2, np.abs(x) - 0.5 / sigma**2), np.where(near, sigma**2 * x, np.sign(x))


@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.parametrize("shapes", [((2, 1, 4, 6), (2, 1, 4, 6)), ((3, 5), (3, 5, 1, 1)), ((1, 2, 3, 1), (1, 6, 1, 1))])
def test_losses_of_other_forks_have_their_value_and_gradient(tmp_path: Path, shapes: Any, weight: float) -> None:
    numbers = np.random.default_rng(8)
    a, b, inside, outside = (numbers.normal(size=shapes[i]) for i in (0, 1, 1, 1))
    b.flat[0] = a.flat[0]  # where L1's gradient is 0
    tensors = {name: array.astype("f") for name, array in (("a", a), ("b", b), ("i", inside), ("o", outside))}
    d = (a.ravel() - b.ravel()).reshape(shapes[0])
    i, o = inside.reshape(shapes[0]), outside.reshape(shapes[0])
    cases = [('type: "L1Loss"', "ab", np.abs(d), np.sign(d))]
    for sigma, parameter in ((1.0, ""), (3.0, "smooth_l1_loss_param { sigma: 3 }")):
        value, slope = smooth(d, sigma)
        cases.append((f'type: "SmoothL1Loss" {parameter}', "ab", value, slope))
        value, slope = smooth(i * d, sigma)
        cases.append((f'type: "SmoothL1Loss" {parameter}', "abi", value, i * slope))
        cases.append((f'type: "SmoothL1Loss" {parameter}', "abio", o * value, o * i * slope))
    jobs = []
    for number, (kind, bottoms, _, _) in enumerate(cases):
        reads = " ".join(f'bottom: "{name}"' for name in bottoms)
        down = "propagate_down: true propagate_down: true" if bottoms == "ab" else ""
        text = f'layer {{ name: "loss" {kind} {reads} top: "loss" loss_weight: {weight} {down} }}'
        used = {name: tensors[name] for name in bottoms}
        net = loss_net(text, used, tmp_path / f"{number}.prototxt")
        jobs.append({"net": net, "feed": used, "backward": True, "train": True})
    count = shapes[0][0]
    for (kind, bottoms, value, slope), made in zip(cases, pycaffe.run(tmp_path, jobs), strict=True):
        assert made["data/loss"] == pytest.approx(value.sum() / count, rel=1e-5), (kind, bottoms)
        for name, sign in (("a", 1), ("b", -1)):
            expected = sign * weight * slope.ravel() / count
            assert np.allclose(made[f"diff/{name}"].ravel(), expected, rtol=1e-4, atol=1e-6), (kind, bottoms, name)


SCALED = """
layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ scale: 0.00390625 {more} }}
         data_param {{ batch_size: 4 }} include {{ phase: TRAIN }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ scale: 0.00390625 }}
         data_param {{ batch_size: 4 }} include {{ phase: TEST }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {{ num_output: 2 kernel_size: 1
         weight_filler {{ type: "constant" value: 1 }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "conv" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
"""


def test_a_data_layers_scale_is_kept_in_every_state(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(SCALED.format(more=""))
    features = np.full((2, 1, 3, 3), 128, np.float32)
    with zoo.load("caffe", tmp_path / "net.prototxt", (1, 3, 3), (1, 3, 3)) as worker:
        for labels in (None, np.zeros((2, 1, 3, 3), np.float32)):
            output, loss, _ = worker.call("predict", features=features, labels=labels)
            assert np.array_equal(output, np.full((2, 2, 3, 3), 0.5, np.float32))
        assert loss == pytest.approx(np.log(2))


def test_crops_and_mirroring_are_left_to_multiseg(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(SCALED.format(more="mirror: true crop_size: 2"))
    features = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    with zoo.load("caffe", tmp_path / "net.prototxt", (1, 3, 3), (1, 3, 3)) as worker:
        output, _, _ = worker.call("predict", features=features, labels=np.zeros((1, 1, 3, 3), np.float32))
    assert output.shape == (1, 2, 3, 3)  # the network takes whatever it is fed


def test_a_softmax_that_is_deployed_alone_is_the_prediction(tmp_path: Path) -> None:
    lenet = (zoo.NETS / "lenet.prototxt").read_text()
    prob = 'layer { name: "prob" type: "Softmax" bottom: "ip2" top: "prob" include { stage: "deploy" } }'
    (tmp_path / "net.prototxt").write_text(lenet + prob)
    with zoo.load("caffe", tmp_path / "net.prototxt", *zoo.SHAPES["lenet"]) as worker:
        output, loss, _ = worker.call("predict", **zoo.batch("lenet"))
    assert output.reshape(3, 10).sum(1) == pytest.approx([1, 1, 1], rel=1e-5)
    labels = zoo.batch("lenet")["labels"].reshape(3).astype(int)
    assert loss == pytest.approx(-np.log(output.reshape(3, 10)[range(3), labels]).mean(), rel=1e-4)


@pytest.mark.parametrize(("change", "message"), [
    (("num_output: 10", "num_output: 10 bias_term: maybe"), r"net.prototxt:\d+:\d+: "),
    (('bottom: "pool2"', 'bottom: "pool3"'), r"layer 'ip1' \(InnerProduct\): reads 'pool3', which no previous layer outputs; "
                                             r"similar names: pool2, pool1"),
    (('type: "Pooling"', 'type: "Poling"'), r"'pool1' \(Poling\): BVLC Caffe has no layer of this type; similar names: Pooling"),
    (("kernel_size: 5", "kernel_size: 50"), r"layer 'conv1' \(Convolution\): has a 50x50 kernel, larger than its input of 28x28"),
    (("kernel_size: 2", "kernel_size: 1"), r"layer 'pool1' \(Pooling\): its last window lies outside its input of 24x24 pixels"),
    (('type: "xavier"', 'type: "xaver"'), r"weight_filler \{ type: 'xaver' \} is unknown; similar names: xavier"),
    (('top: "accuracy"', 'top: "accuracy" accuracy_param { top_k: 11 }'), r"has top_k 11 for 10 classes"),
    (('name: "loss"\n  type: "SoftmaxWithLoss"\n  bottom: "ip2"', 'name: "loss"\n  type: "SoftmaxWithLoss"\n  bottom: "conv2"'),
     r"layer 'loss' \(SoftmaxWithLoss\): needs one class index for each of the 2048 positions of \(32, 50, 8, 8\), its labels "
     r"are \(32, 1, 1, 1\)"),
])  # fmt: skip
def test_mistakes_are_told_before_caffe_ends_the_process(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = (zoo.NETS / "lenet.prototxt").read_text()
    assert change[0] in text
    (tmp_path / "net.prototxt").write_text(text.replace(*change))
    with pytest.raises(ModelError, match=message):
        zoo.load("caffe", tmp_path / "net.prototxt", *zoo.SHAPES["lenet"]).call("predict", **zoo.batch("lenet"))


def test_a_slip_of_the_pen_never_kills_the_worker(tmp_path: Path) -> None:
    """One number or word changed at random: the network loads, or a ModelError says why not."""
    text = (zoo.NETS / "autoencoder.prototxt").read_text() + (zoo.NETS / "lenet.prototxt").read_text()
    words = sorted(set(re.findall(r'"[^"]*"', text)))
    loaded = {True: 0, False: 0}
    model = tmp_path / "net.prototxt"
    model.write_text((zoo.NETS / "lenet.prototxt").read_text())
    with zoo.load("caffe", model, *zoo.SHAPES["lenet"]) as worker:
        for seed in range(120):
            draw = random.Random(seed)
            name = draw.choice(["autoencoder", "lenet"])
            tokens = re.findall(r'#[^\n]*|"[^"]*"|[\w.]+|[^\w\s]|\s+', (zoo.NETS / f"{name}.prototxt").read_text())
            place = draw.choice([i for i, token in enumerate(tokens) if token[0] == '"' or token[0].isdigit()])
            tokens[place] = draw.choice(
                words if tokens[place][0] == '"' else ["0", "1", "2", "3", "5", "-1", "0.5", "99"]
            )
            model.write_text("".join(tokens))
            try:
                worker.call("load", spec=zoo.spec(model, *zoo.SHAPES[name]).to_json())
                loaded[True] += 1
            except ModelError as error:
                assert str(error).startswith(str(model))
                loaded[False] += 1
    assert min(loaded.values()) > 20


def test_a_loss_by_name_needs_the_output_in_training(tmp_path: Path) -> None:
    text = (zoo.NETS / "autoencoder.prototxt").read_text()
    once = text.replace(
        'bottom: "deconv2"\n  top: "sigmoid"', 'bottom: "deconv2"\n  top: "sigmoid"\n  include { stage: "deploy" }'
    )
    assert once != text
    (tmp_path / "net.prototxt").write_text(once)
    with pytest.raises(
        ModelError, match=r"its output 'sigmoid' exists in the deploy state only; loss= needs it in training"
    ):
        zoo.load("caffe", tmp_path / "net.prototxt", *zoo.SHAPES["autoencoder"], loss="l2")


def test_a_layer_that_writes_a_file_of_its_own_is_refused(tmp_path: Path) -> None:
    output = f'hdf5_output_param {{ file_name: "{tmp_path / "written"}" }}'
    layer = f'layer {{ name: "out" type: "HDF5Output" bottom: "data" bottom: "label" {output} include {{ stage: "train" }} }}\n'
    (tmp_path / "net.prototxt").write_text((zoo.NETS / "autoencoder.prototxt").read_text() + layer)
    with pytest.raises(ModelError, match=r"layer 'out' \(HDF5Output\): writes the file '.*written' .* --trust-graph"):
        zoo.load("caffe", tmp_path / "net.prototxt", *zoo.SHAPES["autoencoder"])
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("solver", [None, {"name": "sgd", "momentum": 0.9, "weight_decay": 0.0}])
def test_damaged_weights_of_a_snapshot_without_sums_are_refused(tmp_path: Path, solver: dict[str, Any] | None) -> None:
    """Caffe itself reads them in silence, and leaves the weights as they are."""
    weights = tmp_path / "network.caffemodel"
    with zoo.load("caffe", zoo.NETS / "autoencoder.prototxt", *zoo.SHAPES["autoencoder"]) as worker:
        worker.call("save", folder=str(tmp_path))
    whole = proto.NetParameter.FromString(weights.read_bytes())
    with zoo.load("caffe", zoo.NETS / "autoencoder.prototxt", *zoo.SHAPES["autoencoder"], solver=solver) as worker:
        weights.write_bytes(b"")
        with pytest.raises(
            ModelError, match=r"network\.caffemodel: is damaged: it has no weights of the layer 'conv1'"
        ):
            worker.call("restore", folder=str(tmp_path))
        del next(layer for layer in whole.layer if layer.name == "conv2").blobs[:]
        weights.write_bytes(whole.SerializeToString())
        with pytest.raises(
            ModelError, match=r"network\.caffemodel: is damaged: it has no weights of the layer 'conv2'"
        ):
            worker.call("restore", folder=str(tmp_path))


def test_the_shape_of_labels_is_checked_where_it_says_something(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"its output 'score' is \(5, 64, 64\) \(C, H, W\), the labels are \(1, 32, 32\)"
    ):
        zoo.load("caffe", zoo.NETS / "fcn8s.prototxt", (3, 64, 64), (1, 32, 32))
    with pytest.raises(
        ModelError, match=r"its output 'score' is \(5, 64, 64\) \(C, H, W\), the labels are \(1, 64, 64\)"
    ):
        zoo.load("caffe", zoo.NETS / "fcn8s.prototxt", (3, 64, 64), (1, 64, 64), loss="l2")


def test_a_train_val_file_is_a_jobs_model(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    """No state marked for deployment: predictions are of the network without loss and accuracy."""
    text = (zoo.NETS / "autoencoder.prototxt").read_text()
    (tmp_path / "train_val.prototxt").write_text(
        text.replace('include { stage: "train" }', "include { phase: TRAIN }")
        .replace('include { stage: "val" }', "include { phase: TEST }")
        .replace('exclude { stage: "deploy" }', "")
    )
    outputs = []
    for model in (zoo.NETS / "autoencoder.prototxt", tmp_path / "train_val.prototxt"):
        job = multiseg.Job(dataset=dataset, backend="caffe", model=model, epochs=1, seed=3, learning_rate=1e-9)
        with job.train(tmp_path / model.stem, progress=False) as run:
            outputs.append((run.history[-1]["val_loss"], run.predict(np.zeros((1, 1, 32, 32), np.uint8))))
    assert outputs[0][0] == outputs[1][0]
    assert np.array_equal(outputs[0][1], outputs[1][1])
