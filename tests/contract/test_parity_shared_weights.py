"""Layers that share weights: each framework adds the gradients of all uses, as float64 and a calculation by hand do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from multiseg import reference
from multiseg.errors import ModelError
from multiseg.parity.comparing import Loss, slopes_alone
from multiseg.parity.plan import ParityBatch
from multiseg.parity.start import start_weights
from multiseg.parity.tying import with_all_names
from multiseg.topology import Topology

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")

QUICK: dict[str, Any] = {"batch_size": 2, "learning_rate": 1e-6, "threads": 1, "subtract_mean": "none"}
CONV = (
    'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {shared} '
    "convolution_param {{ num_output: {outputs} kernel_size: 3 pad: 1 }} }}\n"
)
# the weights, or the weights and the bias, of a convolution that is used twice
TIES = {"all": ('param { name: "w" } param { name: "b" }', True), "weight": ('param { name: "w" } param { }', False)}

BACKENDS = ["caffe", "torch", "tensorflow"]  # of files()


def caffe(ties: str) -> str:
    shared, _ = TIES[ties]
    return (
        'layer { name: "td" type: "Data" top: "data" top: "label" }\n'
        + CONV.format(name="first", bottom="data", shared="", outputs=2)
        + CONV.format(name="a", bottom="first", shared=shared, outputs=2)
        + 'layer { name: "tanh" type: "TanH" bottom: "a" top: "tanh" }\n'
        + CONV.format(name="b", bottom="tanh", shared=shared, outputs=2)
        + CONV.format(name="last", bottom="b", shared="", outputs=1)
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "last" bottom: "label" top: "loss" exclude { stage: "deploy" } }\n'
    )


def torch(ties: str, second: str = "self.e(torch.tanh(self.e(x)))") -> str:
    if not TIES[ties][1]:
        second = "self.b(torch.tanh(self.e(x)))"
    return (
        "import torch\nfrom torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.first, self.e = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)\n"
        "        self.b, self.last = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)\n"
        "        self.b.weight = self.e.weight\n\n"
        f"    def forward(self, x):\n        x = self.first(x)\n        return self.last({second})\n"
    )


def tensorflow(ties: str) -> str:
    bias = "bias" if TIES[ties][1] else "bias2"
    return (
        "from model import Tower\nfrom utils import model_property\nimport tensorflow as tf\nimport utils as digits\n\n\n"
        "def conv(x, outputs, scope, bias='bias'):\n"
        "    with tf.variable_scope(scope, reuse=tf.AUTO_REUSE):\n"
        "        w = tf.get_variable('weights', [3, 3, x.shape[3], outputs])\n"
        "        return tf.nn.bias_add(tf.nn.conv2d(x, w, [1, 1, 1, 1], 'SAME'), tf.get_variable(bias, [outputs]))\n\n\n"
        "class UserModel(Tower):\n    @model_property\n    def inference(self):\n"
        "        x = conv(tf.reshape(self.x, [-1] + list(self.input_shape)), 2, 'first')\n"
        f"        x = conv(tf.tanh(conv(x, 2, 'e')), 2, 'e', '{bias}')\n        return conv(x, 1, 'last')\n\n"
        "    @model_property\n    def loss(self):\n"
        "        return digits.mse_loss(self.inference, tf.reshape(self.y, tf.shape(self.inference)))\n"
    )


def files(folder: Path, ties: str) -> list[Path]:
    """A file of each framework of a network whose second and third convolution share weights."""
    texts = {"net.prototxt": caffe(ties), "net_torch.py": torch(ties), "net_tensorflow.py": tensorflow(ties)}
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]


def convolved(x: Any, weight: Any, bias: Any) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]


def loss_by_hand(arrays: dict[str, Any], images: Any, labels: Any) -> float:
    """The mean squared distance from the labels, in float64."""
    x = convolved(images, arrays["first.weight"], arrays["first.bias"])
    x = np.tanh(convolved(x, arrays["shared"], arrays["bias"]))
    x = convolved(x, arrays["shared"], arrays["bias2"])
    x = convolved(x, arrays["last.weight"], arrays["last.bias"])
    return float(np.square(x - labels).mean())


@pytest.mark.parametrize("ties", TIES)
def test_gradients_of_shared_weights_are_the_sum_over_their_uses(
    ties: str, dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    models = files(tmp_path, ties)
    result = multiseg.check_parity(dataset, models=models, steps=2, **QUICK)
    assert result.ok and result.complete, str(result)
    gradients = {row.name for row in result.rows if row.stage == "gradient"}
    assert {"a.weight", "first.weight", "last.bias"} <= gradients and "b.weight" not in gradients
    assert ("b.bias" in gradients) is (ties == "weight")
    steps = [row for row in result.rows if row.stage == "step" and row.name == "a.weight"]
    assert len(steps) == 2 * len(models)

    draw = np.random.default_rng(3)
    images, labels = (draw.normal(size=(2, 1, 6, 6)).astype(np.float32) for _ in range(2))
    for model in models:
        network = multiseg.describe(model, (1, 6, 6))
        a, b = [layer.name for layer in network.layers if layer.type == "Conv"][1:3]
        weights = with_all_names(network, start_weights(network, 5))
        slopes = slopes_alone(network, weights, ParityBatch(images, labels, images), Loss.of(network, "l2", False))
        arrays = {name: value.astype(np.float64) for name, value in weights.items()}
        arrays |= {"shared": arrays[f"{a}.weight"], "bias": arrays[f"{a}.bias"], "bias2": arrays[f"{b}.bias"]}
        step, expected = 1e-5, np.zeros((2, 2, 3, 3))
        for place in np.ndindex(expected.shape):
            sides = []
            for sign in (1, -1):
                arrays["shared"] = weights[f"{a}.weight"].astype(np.float64)
                arrays["shared"][place] += sign * step
                sides.append(loss_by_hand(arrays, images.astype(np.float64), labels))
            expected[place] = (sides[0] - sides[1]) / (2 * step)
        np.testing.assert_allclose(slopes[f"{a}.weight"].value, expected, rtol=1e-6, atol=1e-8)


def test_equal_draws_shared_weights_once(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    """So that networks that share weights start and train alike in all frameworks."""
    losses = []
    for backend, model in zip(BACKENDS, files(tmp_path, "weight"), strict=True):
        run = multiseg.Job(dataset=dataset, backend=backend, model=model, recipe="equal", epochs=1, seed=2, **QUICK)
        losses.append([row["val_loss"] for row in run.train(tmp_path / backend, progress=False).history])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4) and losses[2] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("framework", ["caffe", "torch"])
@pytest.mark.parametrize(
    "setting", [{"freeze": ["b"]}, {"multipliers": {"b.*": {"lr": 0}}}], ids=["freeze", "multipliers"]
)
def test_weights_are_frozen_by_each_of_their_names(
    setting: dict[str, Any], framework: str, dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    model, weights = dict(zip(BACKENDS, files(tmp_path, "weight"), strict=True))[framework], []
    for rate in (1e-6, 2e-6):
        settings = {**QUICK, **setting, "learning_rate": rate, "recipe": "equal", "seed": 2}
        job = multiseg.Job(dataset=dataset, backend=framework, model=model, epochs=1, **settings)
        with job.train(tmp_path / str(rate), progress=False) as run:
            weights.append(run.worker().call("get_weights"))
    moved = {name for name, value in weights[0].items() if (value != weights[1][name]).any()}
    first = "a" if framework == "caffe" else "e"
    assert moved == {"first.weight", "first.bias", f"{first}.bias", "last.weight", "last.bias"}


def test_a_golden_file_has_shared_weights(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    models = files(tmp_path, "weight")
    golden = tmp_path / "golden.safetensors"
    assert multiseg.check_parity(dataset, models=models[0], backends=["caffe"], steps=2, save=golden, **QUICK).ok
    result = multiseg.check_parity(against=golden, models=models[1])
    assert result.ok and {row.step for row in result.rows if row.stage == "step"} == {1, 2}, str(result)


def test_a_use_that_does_not_count_is_found_and_named(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    """In PyTorch's file only the last use of the convolution has a gradient."""
    model = tmp_path / "net.py"
    model.write_text(torch("all", "self.e(torch.tanh(self.e(x)).detach())"))
    result = multiseg.check_parity(dataset, models=model, backends=["torch"], steps=1, **QUICK)
    assert "the gradient of 'e.weight' is the first that differs" in str(result.first_divergence)
    assert "it is the gradient of its use in 'e:2' alone, of 2 uses" in str(result.first_divergence)


def test_weights_that_only_one_file_shares_are_a_difference(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    models = files(tmp_path, "all")[:2]
    models[0].write_text(models[0].read_text().replace('"w"', '"w1"', 1))
    result = multiseg.check_parity(dataset, models=models, steps=0, **QUICK)
    assert (
        "'e.weight' is one array in net_torch.py, and separate arrays in net.prototxt: 'a.weight' and 'b.weight'"
        in str(result.first_divergence)
    )


def test_statistics_and_layouts_that_layers_share_are_refused(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    norm = 'layer {{ name: "{0}" type: "BatchNorm" bottom: "{1}" top: "{0}" param {{ name: "m" }} param {{ }} param {{ }} }}\n'
    model = tmp_path / "net.prototxt"
    text = caffe("all").replace('bottom: "b"', 'bottom: "n2"')
    at = text.index('layer { name: "last"')
    model.write_text(text[:at] + norm.format("n1", "b") + norm.format("n2", "n1") + text[at:])
    with pytest.raises(ModelError, match=r"net\.prototxt: layers share weights .*statistics \(n1 and n2\)"):
        multiseg.check_parity(dataset, ["caffe"], model, steps=0, **QUICK)


def test_the_first_of_tied_names_has_the_gradient_of_all_uses() -> None:
    conv = {"num_output": 1, "kernel_shape": [1, 1], "bias_term": False}
    layers = [
        {"name": name, "type": "Conv", "inputs": [value], "parameters": conv}
        for name, value in (("a", "data"), ("b", "a"))
    ]
    network = Topology.of(
        "net", "test",
        {"input": "data", "input_shape": (1, 1, 1), "layers": layers, "outputs": ["b"], "shared": [["a", "b"]],
         "tied": [["a.weight", "b.weight"]]},
    )  # fmt: skip
    weights = with_all_names(network, {"b.weight": np.full((1, 1, 1, 1), 3, np.float32)})
    trace = reference.forward(network, weights, np.full((1, 1, 1, 1), 5, np.float32))
    slope = reference.Bounded(np.ones((1, 1, 1, 1)))
    assert {name: float(value.value.item()) for name, value in reference.backward(trace, slope).items()} == {
        "a.weight": 2 * 3 * 5  # the derivative of 5 w^2
    }
    uses = reference.backward_by_use(trace, slope)["a.weight"]
    assert {name: float(value.value.item()) for name, value in uses.items()} == {"a": 15, "b": 15}
