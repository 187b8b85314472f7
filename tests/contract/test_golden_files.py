"""A golden file that is written with one framework checks another one, where the first is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.errors import BackendUnavailable
from multiseg.exporting import files
from multiseg.parity.golden import file as golden_file
from multiseg.topology import Topology

pytestmark = pytest.mark.needs("tensorflow", "torch")

FAULTY = Path(__file__).parents[1] / "faulty_backend"
NOWHERE = "/no/such/python"
STEPS = 3


@pytest.fixture(scope="module")
def kept(coloured: multiseg.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden file of a PyTorch module, which only PyTorch can read."""
    windows = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    layers = [
        ("conv1", "Conv", {"num_output": 6, **windows}),
        ("bn", "BatchNormalization", {"epsilon": 1e-5}),
        ("relu", "Relu", {}),
        ("drop", "Dropout", {"ratio": 0.3}),
        ("pool", "MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": False}),
        ("up", "ConvTranspose", {"num_output": 3, "kernel_shape": [2, 2], "strides": [2, 2]}),
    ]
    inputs = ["data", *(name for name, _, _ in layers)]
    described = [
        {"name": name, "type": kind, "inputs": [source], "parameters": parameters}
        for source, (name, kind, parameters) in zip(inputs, layers, strict=False)
    ]
    topology = Topology.of(
        "net", "test", {"input": "data", "input_shape": (3, 8, 8), "layers": described, "outputs": ["up"]}
    )
    folder = tmp_path_factory.mktemp("golden")
    model = files.export(topology, "torch", folder / "net.py")
    path = folder / "golden.safetensors"
    found = multiseg.check_parity(
        coloured, ["torch"], model, steps=STEPS, solver="adam", batch_size=4, threads=1, divide_std="dataset", save=path
    )
    assert found.ok, str(found)
    return path


def check(kept: Path, backend: str, **options: Any) -> Any:
    return multiseg.check_parity(against=kept, backends=[backend], threads=1, **options)


def test_it_is_checked_where_the_framework_that_wrote_it_is_missing(
    kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MULTISEG_TORCH_PYTHON", NOWHERE)
    monkeypatch.setenv("MULTISEG_CAFFE_PYTHON", NOWHERE)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(kept.read_bytes())
    assert moved.stat().st_size < 200_000
    found = check(moved, "tensorflow")
    assert found.ok and found.complete and found.reference_changed is None, str(found)
    assert found.sides == ["TensorFlow"] and found.reference == "net.py in moved.safetensors"
    rows = {stage: {row.name for row in found.rows if row.stage == stage} for stage in ("forward", "gradient", "step")}
    trained = {f"{layer}.{part}" for layer in ("conv1", "bn", "up") for part in ("weight", "bias")}
    assert rows["gradient"] == trained and rows["step"] == {*trained, "bn.running_mean", "bn.running_var"}
    assert rows["forward"] >= {"conv1", "bn", "relu", "pool", "up"}
    assert {row.step for row in found.rows if row.stage == "step"} == set(range(1, STEPS + 1))
    stored = {row.name for row in found.rows if row.stage == "stored"}
    assert stored == {"loss", *(rows["forward"] - {"up"}), *(f"gradient of {name}" for name in trained)}
    with pytest.raises(BackendUnavailable, match=NOWHERE):
        check(moved, "torch")


FAULTS = {
    "padding": "layer 'conv1' is the first that differs",
    "gradient": "the gradient of 'up.",
    "decay": "with weight decay 0.1",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_mistake_is_found_and_named(fault: str, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FAULTY))
    monkeypatch.setenv("MULTISEG_FAULT", fault)
    found = check(kept, "faulty")
    assert not found.ok and found.reference_changed is None
    assert found.first_divergence.startswith("Faulty: ") and FAULTS[fault] in found.first_divergence
    # the values in the file, which do not depend on this version's reference, show it as well
    assert [row for row in found.rows if row.stage == "stored" and not row.ok]


def test_a_network_file_is_compared_with_the_network_in_the_golden_file(kept: Path, tmp_path: Path) -> None:
    right = files.export(golden_file.read(kept).topology, "tensorflow", tmp_path / "right.py")
    found = multiseg.check_parity(against=kept, models=right, threads=1)
    assert found.ok, str(found)
    assert found.rows[0].stage == "network" and found.sides == ["TensorFlow (right.py)"]
    wrong = tmp_path / "wrong.prototxt"
    files.export(golden_file.read(kept).topology, "caffe", wrong)
    wrong.write_text(wrong.read_text().replace('type: "ReLU"', 'type: "TanH"'))
    # a file of Caffe is compared without Caffe, though TensorFlow is to compute it
    found = multiseg.check_parity(against=kept, models=wrong, backends=["tensorflow"], threads=1)
    assert not found.ok and "relu: Relu in net.py, Tanh in wrong.prototxt" in found.first_divergence
