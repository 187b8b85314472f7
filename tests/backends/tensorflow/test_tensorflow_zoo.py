"""The networks of tests/nets as DIGITS TensorFlow files: they load, train a step, and compute what Caffe computes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from helpers import zoo
from helpers.lending import lend
from multiseg.topology import Topology
from multiseg.worker.client import Worker

pytestmark = pytest.mark.needs("tensorflow")

DECAY = {"lenet": 0.0005}  # of the files that regularise their kernels, which DIGITS counts in the reported loss


@pytest.fixture(scope="module")
def tensorflow() -> Iterator[Worker]:
    with lend("tensorflow") as worker:
        yield worker


@pytest.fixture(scope="module")
def caffe() -> Iterator[Worker]:
    with lend("caffe") as worker:
        yield worker


@pytest.mark.parametrize("net", zoo.SHAPES)
def test_a_users_network_trains_a_step_and_has_the_layers_that_it_is_described_with(
    net: str, tensorflow: Worker
) -> None:
    file = zoo.NETS / f"{net}_tensorflow.py"
    batch = {name: array.transpose(0, 2, 3, 1) for name, array in zoo.batch(net).items()}
    tensorflow.call("load", spec=zoo.spec(file, *zoo.SHAPES[net]).to_json())
    arguments = {"path": str(file), "input_shape": zoo.SHAPES[net][0]}
    description = tensorflow.call("read", module="multiseg_tensorflow.reader", function="describe", arguments=arguments)
    topology = Topology.of(file.name, "", description)
    before = tensorflow.call("get_weights")
    assert {name: value.shape for name, value in before.items()} == topology.weights
    output, loss, activations = tensorflow.call("predict", **batch, activations=True)
    shape = topology.shapes[topology.outputs[0]]
    assert output.shape[1:] == ((*shape[1:], shape[0]) if len(shape) == 3 else (1, 1, *shape))
    assert set(activations) == {layer.name for layer in topology.layers if layer.type != "Dropout"}
    scores, labels = output.astype(np.float64), batch["labels"]
    if net == "autoencoder":
        expected = float(np.square(scores - labels).mean())
    else:  # the mean of -log softmax of the label's class, by hand
        picked = np.take_along_axis(scores, labels.astype(int), 3)
        largest = scores.max(3, keepdims=True)
        expected = float((np.log(np.exp(scores - largest).sum(3, keepdims=True)) + largest - picked).mean())
    kernels = [value.astype(np.float64) for name, value in before.items() if name.endswith(".weight")]
    expected += DECAY.get(net, 0) * sum(float(np.square(kernel).sum()) for kernel in kernels) / 2
    assert loss == pytest.approx(expected, rel=1e-5)
    assert math.isfinite(tensorflow.call("train_step", **batch, rate=0.1))
    after = tensorflow.call("get_weights")
    assert all(np.abs(after[name] - before[name]).max() > 0 for name in before)


@pytest.mark.needs("caffe")
@pytest.mark.parametrize("net", ["lenet", "alexnet", "autoencoder", "fcn8s"])  # whose layers have the same names
def test_weights_move_to_caffe_as_they_are(net: str, tensorflow: Worker, caffe: Worker) -> None:
    features = zoo.batch(net)["features"]
    tensorflow.call("load", spec=zoo.spec(zoo.NETS / f"{net}_tensorflow.py", *zoo.SHAPES[net], solver=None).to_json())
    caffe.call("load", spec=zoo.spec(zoo.NETS / f"{net}.prototxt", *zoo.SHAPES[net], solver=None).to_json())
    caffe.call("set_weights", weights=tensorflow.call("get_weights"))
    output, *_ = tensorflow.call("predict", features=features.transpose(0, 2, 3, 1), labels=None)
    expected, *_ = caffe.call("predict", features=features, labels=None)
    made = output.transpose(0, 3, 1, 2).reshape(expected.shape)
    assert np.abs(made - expected).max() <= 1e-5 * np.abs(expected).max()
