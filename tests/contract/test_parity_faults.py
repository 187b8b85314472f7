"""One mistake at a time is planted: in a backend, in a network file, or in weights; the check names it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import multiseg
from helpers import lending
from multiseg.exporting import files
from multiseg.model_files.weights_file import NeutralWeights, write
from multiseg.topology import Topology
from multiseg.topology.matching import match

pytestmark = pytest.mark.needs("caffe", "torch")

FAULTY = Path(__file__).parents[1] / "faulty_backend"


def layers(**changed: dict[str, Any]) -> list[dict[str, Any]]:
    """A network of every kind of layer that mistakes are made with; ``changed``: parameters by layers' names, None drops one."""
    windows = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    steps: list[tuple[str, str, dict[str, Any]]] = [
        ("conv1", "Conv", {"num_output": 6, **windows}),
        ("bn", "BatchNormalization", {"epsilon": 1e-5}),
        ("relu", "Relu", {}),
        ("pool", "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": False}),
        ("conv2", "Conv", {"num_output": 6, **windows}),
        ("up", "ConvTranspose", {"num_output": 3, "kernel_shape": [3, 3], "strides": [2, 2]}),
    ]
    found, last = [], "data"
    for name, kind, said in steps:
        if changed.get(name, {}) is None:
            continue
        found.append({"name": name, "type": kind, "inputs": [last], "parameters": {**said, **changed.get(name, {})}})
        last = name
    return found


def topology(**changed: Any) -> Topology:
    described = layers(**changed)
    said = {"input": "data", "input_shape": (3, 11, 11), "layers": described, "outputs": [described[-1]["name"]]}
    return Topology.of("small.net", "test", said)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> multiseg.Dataset:
    """20 pairs of random pictures in colour, 11x11."""
    folder, draw = tmp_path_factory.mktemp("colours"), np.random.default_rng(3)
    for kind in ("input", "target"):
        (folder / kind).mkdir()
        for i in range(20):
            tint = np.array([200, 100, 30]) if kind == "input" else np.array([128, 128, 128])
            pixels = np.clip(draw.normal(tint, 40, (11, 11, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i}.png")
    return multiseg.Dataset.create(folder / "dataset", input=folder / "input", target=folder / "target", seed=1)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network as it is meant, as a prototxt, which is described without a framework."""
    return files.export(topology(), "caffe", tmp_path_factory.mktemp("right") / "small.prototxt")


@pytest.fixture(scope="module")
def fault_file(lent_workers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file that tells the faulty backend its mistake: one process has them all, one after the other."""
    file = tmp_path_factory.mktemp("fault") / "fault.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MULTISEG_FAULT_FILE", str(file))
        with lending.everywhere():
            yield file


@pytest.fixture
def faulty(fault_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """faulty(fault, mean): from the next network on, the backend has this mistake; until then it has none."""
    monkeypatch.syspath_prepend(str(FAULTY))

    def plant(fault: str, mean: Sequence[float] = ()) -> None:
        fault_file.write_text(json.dumps([fault, list(mean)]))

    plant("")
    return plant


def check(dataset: multiseg.Dataset, model: Path, steps: int = 3, **options: Any) -> Any:
    return multiseg.check_parity(
        dataset, backends=["faulty"], models=model, steps=steps, threads=1, batch_size=4, learning_rate=1e-6, **options
    )


FAULTS = {
    "stride": ["conv1", "stride 2"],
    "padding": ["conv1", "padding (top, left, bottom, right) (2, 2, 0, 0)"],
    "ceil_mode": ["pool", "rounded up"],
    "epsilon": ["bn", "epsilon 0.001 (here 1e-05)"],
    "relu": ["relu", "if it is omitted"],
    "bgr": ["conv1", "BGR for RGB"],
    "hwc": ["conv1", "CHW where they are HWC"],
    "mean": ["conv1", "without the mean subtracted"],
    "transposed": ["conv1", "weight transposed"],
    "bias": ["conv1", "its bias is 0"],
    "gradient": ["the gradient of 'up.", "it is 4 times what it should be"],
    "dampening": ["after step 2", "with dampening 0.9"],
    "nesterov": ["after step 1", "with the rule of nesterov"],
    "decay": ["the gradient of 'up.", "with weight decay 0.1"],
}


# the layers of the parts that some of them are reduced to
REDUCED = {"epsilon": ["bn", "bn_scale"], "bgr": ["conv1"], "gradient": ["up"], "nesterov": ["up"]}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_in_a_backend_is_found_and_named(
    fault: str, colours: multiseg.Dataset, right: Path, faulty: Callable[..., None], tmp_path: Path
) -> None:
    assert colours.mean_pixel is not None
    faulty(fault, [float(value) for value in colours.mean_pixel])
    parts = tmp_path / "parts" if fault in REDUCED else None
    found = check(colours, right, reduce=parts)
    assert not found.ok
    assert found.first_divergence.startswith("Faulty (small.prototxt): ")
    for words in FAULTS[fault]:
        assert words in found.first_divergence
    if parts is not None:
        facts = json.loads((parts / "faulty" / "reduced.json").read_text())
        assert facts["layers"] == REDUCED[fault] and facts["differs_on_its_own"]
        assert facts["part_difference"]["stage"] == facts["difference"]["stage"]
        # the mistake is in the backend: the framework alone has none
        assert facts["shown_by_the_framework_alone"] is (None if fault == "nesterov" else False)
        assert {"part_caffe.prototxt", "part_torch.py", "batch.npz"} <= {
            path.name for path in (parts / "faulty").iterdir()
        }


def test_without_a_mistake_nothing_is_found(
    colours: multiseg.Dataset, right: Path, faulty: Callable[..., None]
) -> None:
    found = check(colours, right)
    assert found.ok and found.first_divergence is None
    assert {row.stage for row in found.rows} == {"forward", "output", "loss", "gradient", "step"}
    assert {row.step for row in found.rows if row.stage == "step"} == {1, 2, 3}


# a mistake of the normalisation's epsilon is smaller than bfloat16's rounding
@pytest.mark.parametrize("fault", ["relu", "transposed", "gradient"])
def test_a_mistake_is_found_in_bfloat16(
    fault: str, colours: multiseg.Dataset, right: Path, faulty: Callable[..., None]
) -> None:
    faulty(fault)
    found = check(colours, right, steps=0, precision="bf16")
    assert found.first_divergence.startswith("Faulty (small.prototxt), bf16: ")
    words = ["the gradient of 'up.", "times what it should be"] if fault == "gradient" else FAULTS[fault]
    assert all(each in found.first_divergence for each in words)


FILES: dict[str, tuple[dict[str, Any], str]] = {
    "stride": ({"conv1": {"strides": [2, 2]}, "up": {"strides": [4, 4]}}, "conv1: stride 1 in small.py, 2 in other.py"),
    "padding": (
        {"conv1": {"pads": [0, 0, 0, 0]}, "up": {"pads": [1, 1, 1, 1], "output_padding": [1, 1]}},
        "conv1: pad",
    ),
    "ceil_mode": ({"pool": {"ceil_mode": True}, "up": {"pads": [1, 1, 1, 1]}}, "pool: "),
    "epsilon": ({"bn": {"epsilon": 1e-3}}, "bn: epsilon 1e-05 in small.py, 0.001 in other.py"),
    "relu": ({"relu": None}, "other.py has no Relu"),
}


REDUCED_FILES = {"stride": ["conv1"], "relu": ["relu"]}


@pytest.mark.parametrize("fault", FILES)
def test_a_mistake_in_a_network_file_is_found_and_named(
    fault: str, colours: multiseg.Dataset, right: Path, tmp_path: Path
) -> None:
    changed, words = FILES[fault]
    other = files.export(topology(**changed), "torch", tmp_path / "other.py")
    parts = tmp_path / "parts" if fault in REDUCED_FILES else None
    found = multiseg.check_parity(colours, models=[right, other], steps=0, threads=1, reduce=parts)
    assert not found.ok
    assert "other.py" in found.sides[1]
    assert words.replace("small.py", "small.prototxt") in found.first_divergence
    if parts is not None:
        facts = json.loads((parts / "torch" / "reduced.json").read_text())
        assert facts["layers"] == REDUCED_FILES[fault] and facts["shown_by_the_framework_alone"]


def conversions() -> dict[str, tuple[str, Any, str]]:
    return {
        "transposed": ("conv1.weight", lambda w: w.swapaxes(2, 3), "transposed (height and width exchanged)"),
        "colours": ("conv1.weight", lambda w: w[:, ::-1], "with its three inputs reversed (RGB for BGR)"),
        "bias": ("up.bias", lambda w: w * 0, "they are all 0"),
    }


@pytest.mark.parametrize("fault", conversions())
def test_a_mistake_in_converted_weights_is_found_and_named(
    fault: str, colours: multiseg.Dataset, right: Path, tmp_path: Path
) -> None:
    from multiseg.parity.start import start_weights

    meant = multiseg.describe(right, (3, 11, 11))
    weights = start_weights(meant, 3)
    name, change, words = conversions()[fault]
    copied = {own: weights[theirs] for own, theirs in match(meant, topology()).parameters.items()}
    wrong = {**copied, name: np.ascontiguousarray(change(weights[name]))}
    for path, content in (("right", weights), ("wrong", wrong)):
        write(tmp_path / f"{path}.safetensors", NeutralWeights(content, "RGB"))
    copy = files.export(topology(), "torch", tmp_path / "copy.py")
    given = [tmp_path / "right.safetensors", tmp_path / "wrong.safetensors"]
    found = multiseg.check_parity(colours, models=[right, copy], weights=given, steps=0, threads=1)
    assert not found.ok
    assert f"PyTorch (copy.py): the weights {name!r} differ" in found.first_divergence
    assert words in found.first_divergence
