"""Every layer of an ONNX file is compared with float64; a mistake within a file is found, with the layer's name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

import multiseg
from helpers.lending import lend
from helpers.networks import layer, topology
from multiseg.cli import main
from multiseg.errors import ModelError, SettingsError
from multiseg.exporting import files, onnx_layers
from multiseg.exporting import onnx as onnx_export
from multiseg.model_files.weights_file import NeutralWeights, write
from multiseg.parity.start import start_weights
from multiseg.topology import Topology
from multiseg.worker.client import Worker

pytestmark = pytest.mark.needs("torch")

Array = np.ndarray[Any, Any]
WINDOW = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
NETWORK = topology(
    [
        layer("conv", "Conv", "data", num_output=4, **WINDOW),
        layer("bn", "BatchNormalization", "conv", epsilon=1e-5),
        layer("relu", "Relu", "bn"),
        layer("drop", "Dropout", "relu"),
        layer("pool", "MaxPool", "drop", kernel_shape=[2, 2], strides=[2, 2]),
        layer("pad", "Conv", "pool", num_output=4, **WINDOW),  # called like a tensor of the exporter
        layer("norm", "LRN", "pad", size=3, alpha=0.1, beta=0.75, bias=1.0),
        layer("up", "ConvTranspose", "norm", num_output=3, kernel_shape=[2, 2], strides=[2, 2]),
    ],
    shape=(3, 8, 8),
)
NAMES = ["conv", "bn", "relu", "pool", "pad", "norm", "up"]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with lend("torch") as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, worker: Worker) -> Path:
    """A folder with the network, its weights and its ONNX file."""
    folder = tmp_path_factory.mktemp("onnx")
    files.export(NETWORK, "caffe", folder / "net.prototxt")
    described = multiseg.describe(folder / "net.prototxt", (3, 8, 8))
    write(folder / "w.safetensors", NeutralWeights(start_weights(described, 3), "RGB"))
    sentences: list[str] = []
    onnx_export.export(
        folder / "net.prototxt",
        folder / "net.onnx",
        (3, 8, 8),
        folder / "w.safetensors",
        worker,
        report=sentences.append,
    )
    # a prototxt has the factors of a normalisation in a layer of their own
    assert sentences == ["8 of 9 layers compared with float64; not compared: drop, which keeps the tensor of its input"]
    return folder


def computed(worker: Worker, path: Path, images: Array, names: list[str]) -> dict[str, Array]:
    arguments = {"path": str(path), "batch": [images], "names": names}
    arrays = worker.call("read", module="multiseg_torch.onnx_export", function="compute", arguments=arguments)
    return dict(zip(names, arrays, strict=True))


def test_the_file_has_the_outputs_of_the_network_and_tensors_with_the_names_of_layers(
    folder: Path, worker: Worker
) -> None:
    proto = onnx.load(folder / "net.onnx")
    assert [entry.name for entry in proto.graph.output] == ["up"]
    layers = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == "multiseg.layers"))
    assert {*NAMES} <= set(layers) and all(value == name for value, name in layers.items()) and "drop" not in layers
    # ONNX's own evaluator in NumPy, which shares no code with onnxruntime
    images = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    values = computed(worker, folder / "net.onnx", images, NAMES)
    evaluator = ReferenceEvaluator(proto)
    expected = evaluator.run(NAMES, {"data": images}, intermediate=True)
    for name in NAMES:
        assert values[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5 * float(np.abs(expected[name]).max()))


def changed_weight(graph: Any) -> None:
    tensor = next(entry for entry in graph.initializer if entry.name == "pad.weight")
    values = numpy_helper.to_array(tensor).copy()
    values[1, 2, 0, 1] *= 1.001
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def node(graph: Any, output: str) -> Any:
    return next(each for each in graph.node if output in each.output)


def attribute(graph: Any, output: str, name: str, value: Any) -> None:
    each = node(graph, output)
    kept = [entry for entry in each.attribute if entry.name != name]
    del each.attribute[:]
    each.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


def other_activation(graph: Any) -> None:
    node(graph, "relu").op_type = "LeakyRelu"


FAULTS: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "weight": (changed_weight, "pad", ""),
    "pads": (lambda graph: attribute(graph, "conv", "pads", [2, 2, 0, 0]), "conv", "it agrees with padding"),
    "activation": (other_activation, "relu", ""),
    "epsilon": (lambda graph: attribute(graph, "bn", "epsilon", 1e-3), "bn", "it agrees with epsilon 0.001"),
    "window": (lambda graph: attribute(graph, "pool", "pads", [1, 1, 0, 0]), "pool", ""),
}


@pytest.fixture(scope="module")
def faulty(folder: Path) -> dict[str, Path]:
    """A copy of the ONNX file with each mistake."""
    found = {}
    for name, (change, _, _) in FAULTS.items():
        proto = onnx.load(folder / "net.onnx")
        change(proto.graph)
        del proto.graph.value_info[:]  # which state the shapes without the mistake
        found[name] = folder / f"{name}.onnx"
        onnx.save(proto, found[name])
    return found


def test_a_mistake_within_a_file_is_found_and_its_layer_named(
    folder: Path, faulty: dict[str, Path], coloured: multiseg.Dataset
) -> None:
    found = multiseg.check_parity(
        coloured, ["torch"], [folder / "net.prototxt", folder / "net.onnx", *faulty.values()], folder / "w.safetensors",
        steps=0, threads=1, batch_size=2,
    )  # fmt: skip
    right = [row for row in found.rows if row.side == "ONNX (net.onnx)"]
    assert {*NAMES} <= {row.name for row in right if row.stage == "forward"}
    assert [row.stage for row in right if row.stage != "forward"] == ["output"]
    assert all(row.ok for row in right) and any(row.share > 0 for row in right)
    assert "ONNX (net.onnx): 8 of 9 layers compared; an ONNX file is compared in prediction" in found.notes
    for name, (_, place, words) in FAULTS.items():
        sentence = next(line for line in found.differences if line.startswith(f"ONNX ({name}.onnx)"))
        assert f"layer {place!r} is the first that differs" in sentence
        assert words in sentence


def test_an_export_with_a_mistake_is_refused_with_the_layer(
    folder: Path, faulty: dict[str, Path], worker: Worker
) -> None:
    described: Topology = multiseg.describe(folder / "net.prototxt", (3, 8, 8))
    weights = start_weights(described, 3)
    images = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    names = [*described.outputs, *onnx_layers.further_values(described)]

    def compare(path: Path) -> onnx_layers.Compared:
        values = {name: array for name, array in computed(worker, path, images, names).items() if array.size}
        return onnx_layers.compare(described, weights, [images], values)

    assert len(compare(folder / "net.onnx").layers) == 8
    for name, (_, place, _) in FAULTS.items():
        with pytest.raises(
            ModelError, match=rf"layer '{place}' is the first that onnxruntime computes otherwise .*times what"
        ):
            compare(faulty[name])


def test_on_the_command_line_and_what_is_refused(folder: Path, coloured: multiseg.Dataset, tmp_path: Path) -> None:
    golden = tmp_path / "golden.safetensors"
    words = [
        "parity",
        "--dataset",
        coloured.path,
        "--model",
        folder / "net.prototxt",
        "--backend",
        "torch",
        "--batch-size",
        2,
    ]
    more = ["--weights", folder / "w.safetensors", "--model", folder / "net.onnx", "--steps", 0, "--save", golden]
    result = CliRunner().invoke(main, [str(word) for word in [*words, *more]])
    assert result.exit_code == 0, result.output
    assert "ONNX (net.onnx)" in result.stdout
    # a golden file has the network and the weights: neither is specified again
    against = multiseg.check_parity(against=golden, models=folder / "net.onnx", threads=1)
    assert against.ok and against.sides == ["ONNX (net.onnx)"]
    with pytest.raises(SettingsError, match="specify those that it was exported with"):
        multiseg.check_parity(
            coloured, ["torch"], [folder / "net.prototxt", folder / "net.onnx"], steps=0, batch_size=2
        )
    with pytest.raises(SettingsError, match="is compared with the network that it was exported from"):
        multiseg.check_parity(coloured, models=folder / "net.onnx")
    (tmp_path / "text.onnx").write_text("no ONNX")
    with pytest.raises(ModelError, match=r"text\.onnx: is not a complete ONNX file"):
        multiseg.check_parity(against=golden, models=tmp_path / "text.onnx", threads=1)
