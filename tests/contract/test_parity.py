"""Networks in all frameworks against the float64 reference: same weights, same batches, every number within rounding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multiseg
from helpers import zoo
from helpers.nightly import nightly
from multiseg import backend as registry
from multiseg.errors import BackendUnavailable, ModelError, SettingsError
from multiseg.parity.result import Parity
from multiseg.parity.rows import ParityRow
from multiseg.reference import Bounded
from multiseg.reference.class_losses import cross_entropy

pytestmark = pytest.mark.needs("caffe", "tensorflow", "torch")

QUICK: dict[str, Any] = {"batch_size": 4, "learning_rate": 1e-7, "threads": 1}
STAGES = {"forward", "output", "loss", "gradient", "step"}


@pytest.mark.parametrize(
    ("channels", "steps"),
    [pytest.param(1024, 3, marks=pytest.mark.nightly), (128, 8)],  # full width, and narrower
)
def test_steps_of_the_fcn_agree_in_all_frameworks(channels: int, steps: int, dataset: Any, tmp_path: Path) -> None:
    """Each framework loads its own file of the network: for a few steps, and for many with an eighth of conv2's channels."""
    models = None if channels == 1024 else narrowed(tmp_path, channels)
    found = multiseg.check_parity(
        dataset, backends=["caffe", "torch", "tensorflow"] if models is None else None, models=models, steps=steps,
        batch_size=2, threads=1,
    )  # fmt: skip
    assert found.ok, str(found)
    assert found.first_divergence is None and found.notes == []
    assert [side.split(" (")[0] for side in found.sides] == ["Caffe", "PyTorch", "TensorFlow"]
    for side in found.sides:
        rows = [row for row in found.rows if row.side == side]
        assert {row.stage for row in rows} >= STAGES
        assert {row.name for row in rows if row.stage == "forward"} == {"conv1", "relu1", "conv2", "relu2", "deconv"}
        parameters = [f"{layer}.{part}" for layer in ("conv1", "conv2", "deconv") for part in ("weight", "bias")]
        assert {row.name for row in rows if row.stage == "gradient"} == set(parameters)
        stepped = [row.step for row in rows if row.name == "conv2.weight" and row.stage == "step"]
        assert stepped == list(range(1, steps + 1))
    assert {side: len(apart) for side, apart in found.apart.items()} == dict.fromkeys(found.sides[1:], steps)
    assert max(max(apart) for apart in found.apart.values()) < 1e-4


def narrowed(folder: Path, channels: int) -> list[Path]:
    """The frameworks' files of the FCN with as many channels in the middle."""
    made = []
    for backend in ("caffe", "torch", "tensorflow"):
        file = registry.get(backend).default_model_path
        text = file.read_text()
        assert "1024" in text
        made.append(folder / file.name)
        made[-1].write_text(text.replace("1024", str(channels)))
    return made


def test_swish_is_trained_alike_in_files_of_three_frameworks(dataset: Any, tmp_path: Path) -> None:
    """A Caffe file with Swish in place of ReLU, and the files exported from it."""
    caffe = narrowed(tmp_path, 32)[0]
    text = caffe.read_text()
    assert text.count('type: "ReLU"') == 2
    caffe.write_text(text.replace('type: "ReLU"', 'type: "Swish"'))
    shape = dataset.train.shape
    exported = [multiseg.export(caffe, to, tmp_path / f"swish_{to}.py", shape) for to in ("torch", "tensorflow")]
    assert [layer.type for layer in multiseg.describe(exported[1], shape).layers].count("Swish") == 2
    result = multiseg.check_parity(dataset, models=[caffe, *exported], steps=2, **QUICK)
    assert result.ok, str(result)
    for side in result.sides:
        rows = [row for row in result.rows if row.side == side]
        assert {row.stage for row in rows} >= STAGES
        assert len({row.name for row in rows if row.stage == "gradient"}) == 6


@pytest.mark.parametrize("net", nightly(zoo.SHAPES, ["alexnet", "fcn8s"]))
def test_the_networks_of_the_zoo_agree_when_one_file_is_computed_in_all_frameworks(net: str, tmp_path: Path) -> None:
    data = zoo.dataset(net, tmp_path / "dataset")
    found = multiseg.check_parity(
        data, ["caffe", "torch", "tensorflow"], zoo.NETS / f"{net}.prototxt", steps=2, subtract_mean="none", **QUICK
    )
    assert found.ok, str(found)
    for side in found.sides:
        rows = [row for row in found.rows if row.side == side]
        with_dropout = {"dropout"} if net in ("inception", "alexnet", "fcn8s") else set()
        assert {row.stage for row in rows} == STAGES | with_dropout
        layers = multiseg.describe(zoo.NETS / f"{net}.prototxt", zoo.SHAPES[net][0]).layers
        trained = {f"{layer.name}.{part}" for layer in layers for part in layer.weights if not layer.frozen}
        assert {row.name for row in rows if row.stage == "gradient"} == trained


@pytest.mark.parametrize("net", ["lenet"])
def test_three_frameworks_own_files_of_a_network_agree(net: str, tmp_path: Path) -> None:
    data = zoo.dataset(net, tmp_path / "dataset")
    files = [zoo.NETS / name for name in (f"{net}.prototxt", f"{net}.lua", f"{net}_tensorflow.py")]
    found = multiseg.check_parity(data, models=files, steps=1, subtract_mean="none", **QUICK)
    assert found.ok, str(found)
    assert [row.side for row in found.rows if row.stage == "network"] == found.sides[1:]
    assert {row.stage for row in found.rows if row.side == found.sides[2]} >= {"forward", "output"}


@pytest.mark.parametrize("solver", ["adadelta", "adam"])
def test_other_solvers_of_the_recipe_agree(solver: str, tmp_path: Path) -> None:
    data = zoo.dataset("autoencoder", tmp_path / "dataset")
    model = zoo.NETS / "autoencoder.prototxt"
    found = multiseg.check_parity(
        data, ["caffe", "torch", "tensorflow"], model, steps=3, solver=solver, batch_size=4, threads=1,
        subtract_mean="none",
    )  # fmt: skip
    assert found.ok, str(found)
    # the tolerance is no idle one: a tenth of the change of a step would be found
    steps = [row for row in found.rows if row.stage == "step" and row.name == "conv1.weight"]
    assert len(steps) == 9


def test_runs_are_compared_with_their_weights(dataset: Any, tmp_path: Path) -> None:
    """A run in Caffe, and the same weights moved to PyTorch."""
    run = multiseg.Job(dataset=dataset, backend="caffe", epochs=1, seed=3, batch_size=54).train(
        tmp_path / "run", progress=False
    )
    multiseg.convert(run, "pt", tmp_path / "moved.pt", with_network=tmp_path / "moved.py")
    run.close()
    found = multiseg.check_parity(
        dataset, models=[run.path, tmp_path / "moved.py"], weights=[run.path, tmp_path / "moved.pt"], steps=1, **QUICK
    )
    assert found.ok, str(found)
    weights = [row for row in found.rows if row.stage == "weights"]
    assert len(weights) == 6 and all(row.absolute == 0 for row in weights)


def test_the_command_says_it_in_figures_words_and_a_page(dataset: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "multiseg.cli", "parity", "--dataset", str(dataset.path), "--steps", "0"]
    model = tmp_path / "net.prototxt"
    model.write_text((zoo.NETS / "autoencoder.prototxt").read_text())
    more = ["--model", str(model), "--backend", "caffe", "--batch-size", "2", "-o", str(tmp_path / "page.html")]
    done = subprocess.run([*command, *more, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ok"] is True and told["first_divergence"] is None and told["sides"] == ["Caffe (net.prototxt)"]
    assert {row["stage"] for row in told["rows"]} == {"forward", "output", "loss", "gradient"}
    page = (tmp_path / "page.html").read_text().replace("http://www.w3.org/2000/svg", "")  # a namespace
    assert "The same to rounding" in page and "https:" not in page and "http:" not in page

    other = tmp_path / "other.prototxt"
    other.write_text(model.read_text().replace('type: "ReLU"', 'type: "TanH"', 1))
    done = subprocess.run([*command, "--model", str(model), "--model", str(other)], capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "differs: Caffe (other.prototxt): relu1: Relu in net.prototxt, Tanh in other.prototxt" in done.stdout
    done = subprocess.run([*command, "--model", str(tmp_path / "none.prototxt")], capture_output=True, text=True)
    assert done.returncode == 2 and "none.prototxt: no such file" in done.stderr and "Traceback" not in done.stderr


def test_what_cannot_be_compared_is_told_at_once(dataset: Any, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="steps=-1"):
        multiseg.check_parity(dataset, steps=-1)
    with pytest.raises(BackendUnavailable, match="no backend is called 'mxnet'"):
        multiseg.check_parity(dataset, backends=["mxnet"])
    with pytest.raises(SettingsError, match="2 weights for 1 models"):
        multiseg.check_parity(dataset, models="net.prototxt", weights=["a.pt", "b.pt"])
    with pytest.raises(ModelError, match=r"net\.prototxt: no such file"):
        multiseg.check_parity(dataset, models=tmp_path / "net.prototxt")
    with pytest.raises(SettingsError, match="solver='adamw'"):
        multiseg.check_parity(dataset, backends=["torch"], solver="adamw")


@pytest.mark.parametrize(
    ("measured", "share", "words"),
    [
        (np.array([1.0, 2.0]), 0.0, None),
        (np.array([1.0, 2.5]), 2.5, None),
        (
            np.array([1.0, np.nan]),
            np.inf,
            "is not finite: NaN in 1 of 2 elements, first at [1], where the reference is 2",
        ),
        (np.array([1.0]), np.inf, "has the shape (1,), not (2,)"),
    ],
)
def test_a_row_tells_the_largest_share_of_a_tolerance(measured: Any, share: float, words: str | None) -> None:
    row = ParityRow.of("side", "forward", "name", Bounded(np.array([1.0, 2.0]), np.array([0.1, 0.2])), measured)
    assert row.share == pytest.approx(share) and row.words == words and row.ok == (share <= 1)
    if share == 2.5:
        assert (row.absolute, row.relative, row.tolerance) == (0.5, 0.25, pytest.approx(0.2))
        assert row.resolution == pytest.approx(0.15 / 2)


def test_what_the_reference_has_no_number_for_is_not_judged_and_no_agreement() -> None:
    expected = Bounded(np.array([1.0, np.inf, 3.0]), np.array([0.1, 0.1, np.nan]))
    row = ParityRow.of("side", "gradient", "name", expected, np.array([1.05, 7.0, 7.0]))
    assert row.ok and row.share == pytest.approx(0.5) and row.unjudged == 2
    assert not Parity("net", ["side"], {}, [row]).complete
    assert Parity("net", ["side"], {}, [ParityRow("side", "loss", "loss")]).complete


def test_caffes_loss_of_a_hopeless_image_is_one_of_two_and_nothing_between() -> None:
    """Of 100, float64's, and of 87.3, the logarithm of the smallest normal float32."""
    values, _ = cross_entropy(Bounded(np.array([[100.0, 0.0], [0.0, 0.0]])), np.array([1, 1]).reshape(2, 1, 1, 1))
    assert [float(value.value) for value in values] == pytest.approx([(100 + np.log(2)) / 2, (126 + 1) * np.log(2) / 2])
    assert max(float(value.bound) for value in values) < 1e-4


def test_a_layer_that_leads_to_no_output_does_not_count(dataset: Any, tmp_path: Path) -> None:
    model = tmp_path / "head.py"
    model.write_text(
        "from torch import nn\n\n\nclass Head(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(1, 1, 3, padding=1)\n        self.head = nn.Conv2d(1, 2, 1)\n\n"
        "    def forward(self, x):\n        self.head(x)\n        return self.conv(x)\n"
    )
    found = multiseg.check_parity(dataset, ["torch", "caffe"], model, steps=1, **QUICK)
    assert found.ok and found.complete, str(found)


ODD: dict[str, tuple[str, str]] = {  # lines of forward(self, x), and the backend that computes it
    "a slope that is not exact": ("F.leaky_relu(self.conv(x), 0.3)", "torch"),
    "limits that are not exact": ("torch.clamp(self.conv(x), -0.1, 0.7)", "caffe"),
    "a padding that is not exact": ("F.pad(self.conv(x), (1, 1, 1, 1), value=0.1)[:, :, 1:-1, 1:-1]", "torch"),
    "roots of zeros": ("torch.relu(self.conv(x)) ** 1.5", "torch"),
    "a prelu in TensorFlow": ("self.prelu(self.conv(x))", "tensorflow"),
    "groups of a deconvolution in TensorFlow": ("self.up(self.two(x)).sum(1, keepdim=True)", "tensorflow"),
    "a layer that is not trained": ("self.fixed(self.conv(x))", "torch"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_no_mistake_is_not_taken_for_one(case: str, dataset: Any, tmp_path: Path) -> None:
    forward, backend = ODD[case]
    model = tmp_path / "odd.py"
    model.write_text(
        "import torch\nfrom torch import nn\nfrom torch.nn import functional as F\n\n\n"
        "class Odd(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.conv = nn.Conv2d(1, 1, 3, padding=1)\n        self.two = nn.Conv2d(1, 4, 2, 2)\n"
        "        self.prelu = nn.PReLU()\n        self.up = nn.ConvTranspose2d(4, 4, 2, 2, groups=2)\n"
        "        self.fixed = nn.Conv2d(1, 1, 1).requires_grad_(False)\n\n"
        f"    def forward(self, x):\n        return {forward}\n"
    )
    # on one thread PyTorch adds the equal terms of a plain background in one row: docs/parity.md, "What is not compared"
    found = multiseg.check_parity(dataset, [backend], model, steps=1, **{**QUICK, "threads": 2})
    assert found.ok, str(found)


def test_what_cannot_be_compared_is_no_agreement(dataset: Any, tmp_path: Path) -> None:
    model = tmp_path / "circular.py"
    model.write_text(
        "from torch import nn\n\n\ndef network(params):\n    return nn.Conv2d(1, 1, 3, padding=1, padding_mode='circular')\n"
    )
    found = multiseg.check_parity(dataset, ["torch"], model, steps=1, **QUICK)
    assert not found.complete and found.left_out
    assert not [row for row in found.rows if row.stage in ("forward", "gradient", "step")]
    model.write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.e = nn.Conv2d(1, 1, 3, padding=1)\n\n    def forward(self, x):\n        return self.e(self.e(x))\n"
    )
    with pytest.raises(
        ModelError, match=r"circular\.py: Caffe cannot express it exactly; layers that share weights.*: e$"
    ):
        multiseg.check_parity(dataset, ["caffe"], model, steps=1, **QUICK)


def test_a_training_that_leaves_float32_is_told_as_that(dataset: Any) -> None:
    found = multiseg.check_parity(dataset, ["torch"], steps=3, batch_size=2, threads=1, learning_rate=1e25)
    assert found.ok and "choose a learning rate below" in found.left_out[0]
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.needs("caffe")
def test_a_single_model_is_computed_by_every_backend(
    backends: list[str], dataset: multiseg.Dataset, tmp_path: Path
) -> None:
    """Without --backend, as the command's help says."""
    model = tmp_path / "net.prototxt"
    model.write_text(
        'layer { name: "td" type: "Data" top: "data" top: "label" }'
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 1 kernel_size: 1 } }'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "conv" bottom: "label" top: "loss" exclude { stage: "deploy" } }'
    )
    result = multiseg.check_parity(dataset, models=model, steps=0, threads=1, batch_size=2)
    titles = {registry.get(backend).title for backend in backends}
    assert (
        {side.partition(" (")[0] for side in result.sides} == titles and len(result.sides) == len(titles) and result.ok
    )
