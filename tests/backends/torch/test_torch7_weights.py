""".t7 files, read without Torch7: what the format's specification says they hold, and nothing executed or blown up."""

from __future__ import annotations

import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.t7_writer import Function, Tensor, Torch, Writer, t7, tensor
from helpers.torch7_networks import convolution, network
from multiseg.backend import get
from multiseg.errors import ModelError
from multiseg.model_files.kinds import kind_of

pytestmark = pytest.mark.needs("torch")


def read(path: Path, value: Any, ascii: bool = False) -> Any:
    from multiseg_torch.torch7 import t7 as reader

    path.write_bytes(value if isinstance(value, bytes) else t7(value, ascii))
    return reader.read(str(path))


@pytest.mark.parametrize("ascii", [False, True])
def test_values_of_every_type_come_back(tmp_path: Path, ascii: bool) -> None:
    shared = np.arange(12, dtype=np.float32)
    value = {
        "number": 1.5, "whole": 3, "text": "two\nlines \xe9", "none": "", "yes": True, "no": False, 1: "first", 2: "second",
        "strided": Tensor(shared, [3, 2], [1, 3], 2), "same": Tensor(shared, [12], [1]),
        "again": [1, [2]], "code": Function(b"\x1bLJ\n\0", {1: {"name": "x", "value": 4}}), "old": Function(b"x", {}, 7),
        "oldest": Function(b"y", {1: 2}, 6),
        **{kind: tensor(np.array([[1, 2, 3]], kind)) for kind in ("f4", "f8", "u1", "i1", "i2", "i4", "i8")},
        **({} if ascii else {"half": tensor(np.array([0.5, 2], "f2"), "torch.CudaHalfTensor")}),
        "unversioned": Torch("nn.Identity", None, kept=7),
    }  # fmt: skip
    value["itself"] = value
    found = read(tmp_path / "a.t7", value, ascii).fields
    for key in ("number", "whole", "text", "none", "yes", "no", 1, 2):
        assert found[key] == value[key] and type(found[key]) is type(value[key]), key
    assert np.array_equal(found["strided"], [[2, 5], [3, 6], [4, 7]])
    assert np.array_equal(found["same"], shared) and np.shares_memory(found["same"], found["strided"])
    assert found["again"].listed()[1].listed() == [2]
    assert found["itself"].fields is found
    assert found["code"].type == found["old"].type == found["oldest"].type == "function"
    assert found["unversioned"].type == "nn.Identity" and found["unversioned"].fields == {"kept": 7}
    for kind in ("f4", "f8", "u1", "i1", "i2", "i4", "i8"):
        assert np.array_equal(found[kind], [[1, 2, 3]]) and found[kind].dtype == kind, kind
    assert ascii or np.array_equal(found["half"], [0.5, 2])


def test_a_file_by_hand_byte_for_byte(tmp_path: Path) -> None:
    """{[1] = a FloatTensor of 2x1 whose storage holds 7, 8, 9, from the second element on}"""
    data = struct.pack("<iii", 3, 1, 1) + struct.pack("<id", 1, 1.0)
    data += struct.pack("<iii3si", 4, 2, 3, b"V 1", 17) + b"torch.FloatTensor"
    data += struct.pack("<i5q", 2, 2, 1, 1, 1, 2) + struct.pack("<iii3si", 4, 3, 3, b"V 1", 18) + b"torch.FloatStorage"
    data += struct.pack("<q3f", 3, 7, 8, 9)
    assert np.array_equal(read(tmp_path / "a.t7", data).fields[1], [[8], [9]])
    text = b"3\n1\n1\n1\n1\n4\n2\n3\nV 1\n17\ntorch.FloatTensor\n2\n2 1\n1 1\n2\n4\n3\n3\nV 1\n18\ntorch.FloatStorage\n3\n7 8 9\n"
    assert np.array_equal(read(tmp_path / "b.t7", text).fields[1], [[8], [9]])


@pytest.mark.parametrize("ascii", [False, True])
def test_a_whole_model_is_built_with_its_weights(tmp_path: Path, ascii: bool) -> None:
    import torch
    from multiseg_torch import files, reader
    from torch.nn import functional as F

    saved, path = network(), tmp_path / "model.t7"
    path.write_bytes(t7({"model": saved, "epoch": 3, "criterion": Torch("nn.MSECriterion", sizeAverage=False)}, ascii))
    assert kind_of(path, "network")[1].name == "Torch7 model"
    assert kind_of(path, "weights")[1].name == "Torch7 weights"
    model = files.load(str(path), (1, 6, 6)).model.eval()
    conv, norm, _, mm, _, linear = (module.fields for module in saved.fields["modules"])

    def held(fields: Any, part: str, shape: Any = None) -> Any:
        each = fields[part]
        return torch.from_numpy(each.storage.astype(np.float32).reshape(shape or each.size))

    x = torch.randn(2, 1, 6, 6)
    y = F.conv2d(x, held(conv, "weight"), held(conv, "bias"), padding=1)
    y = F.batch_norm(y, *(held(norm, p) for p in ("running_mean", "running_var", "weight", "bias")), eps=1e-3)
    y = F.conv2d(F.relu(y), held(mm, "weight", (3, 4, 3, 3)), held(mm, "bias"), padding=1)
    expected = F.linear(y.flatten(1), held(linear, "weight"), held(linear, "bias"))
    with torch.no_grad():
        assert torch.allclose(model(x), expected, atol=1e-5)
    weights = reader.read_weights(str(path))
    assert np.array_equal(weights["5.weight"], held(linear, "weight"))
    assert {name: list(value.shape) for name, value in weights.items()} == {
        name: list(value.shape) for name, value in model.state_dict().items() if value.is_floating_point()
    }
    assert reader.describe(str(path), [1, 6, 6])["loss"] == "squared differences, summed"


def test_a_vector_of_all_parameters_fits_onto_a_network_in_its_order(tmp_path: Path) -> None:
    from multiseg_torch import reader, weights, weights_files
    from torch import nn

    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Linear(4, 3)))
    count = 18 + 2 + 2 + 2 + 12 + 3
    (tmp_path / "weights.t7").write_bytes(t7(tensor(np.arange(count, dtype=np.float64))))
    found = reader.read_weights(str(tmp_path / "weights.t7"))
    values = weights.unflattened(model, "net.lua", found)
    assert np.array_equal(values["0.weight"].ravel(), np.arange(18)) and np.array_equal(values["0.bias"], [18, 19])
    assert np.array_equal(values["1.bias"], [22, 23]) and np.array_equal(values["2.0.bias"], [36, 37, 38])
    assert np.array_equal(values["1.running_var"], [1, 1])  # no parameter
    with pytest.raises(ModelError, match=r"net.lua: has 39 parameters, the vector of weights holds 38 numbers"):
        weights.unflattened(model, "net.lua", {weights_files.FLAT: np.zeros(38, np.float32)})


def test_a_vector_of_weights_goes_into_a_network_in_its_worker(tmp_path: Path) -> None:
    from multiseg.network import NetworkSpec
    from multiseg.worker.client import Worker

    (tmp_path / "net.lua").write_text("return nn.Sequential():add(nn.SpatialConvolution(1, 1, 2, 2)):add(nn.ReLU())")
    spec = NetworkSpec(
        model=str(tmp_path / "net.lua"), input_shape=(1, 4, 4), label_shape=(1, 3, 3), solver=None, loss="l2",
        batch_size=None, val_batch_size=None, seed=1, threads=1, device="cpu", lowering=True,
    )  # fmt: skip
    with Worker(get("torch"), threads=1) as worker:
        worker.call("load", spec=spec.to_json())
        worker.call("set_weights", weights={"parameters": np.array([1, 2, 3, 4, 5], np.float32)})
        weights = worker.call("get_weights")
    assert np.array_equal(weights["0.weight"], [[[[1, 2], [3, 4]]]]) and np.array_equal(weights["0.bias"], [5])


def huge(size: list[int], stride: list[int], count: int) -> Tensor:
    return Tensor(np.zeros(count, np.float32), size, stride)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (t7(network())[:2000], "bytes are left"),
        (t7(network(), True)[:-300], "is not a valid .t7 file"),
        (struct.pack("<ii", 4, 1) + struct.pack("<i", 2**31 - 1), "2147483647 bytes are needed"),
        (struct.pack("<iii", 3, 1, 2**31 - 1), "4 bytes are needed, 0 are left"),
        (struct.pack("<ii", 2, -5), "-5 bytes are needed"),
        (b"\x63\0\0\0", "99 is not an object type"),
        (t7(huge([2**40], [1], 4)), "larger than its storage of 4"),
        (t7(huge([2**40, 2**20], [0, 0], 4)), "larger than its storage of 4"),
        (t7(huge([-3], [1], 4)), "no storage that fits"),
        (t7(huge([4], [-1], 4)), "no storage that fits"),
        (t7({1: Torch("torch.Generator")}), "holds a torch.Generator"),
        (t7([1, 2]), "holds a table with 1, 2; a whole model"),
        (t7(tensor(np.zeros((2, 2)))), "holds a tensor of (2, 2)"),
        (t7(Torch("nn.Sequential", modules=[Torch("nn.TemporalConvolution")])), "TemporalConvolution: is not a supported module"),
        (t7(Torch("nn.Sequential", modules=[3])), "holds 3 where a module is needed"),
        (t7(Torch("nn.Sequential")), "has no modules"),
        (t7(Torch("nn.Sequential", modules=[convolution(1, 2, 3, kW=None)])), "its kW is nil; it must be a number"),
        (t7(Torch("nn.Sequential", modules=[convolution(1, 2, 3, kW=5)])), "(2, 1, 3, 3), its fields require (2, 1, 3, 5)"),
        (t7(Torch("nn.Sequential", modules=[convolution(1, 2, 3, nInputPlane=2**30)])), "its weight has shape (2, 1, 3, 3), its"),
        (t7(Torch("nn.Linear", inputSize=2**20, outputSize=2**20)), "would have 1099511627776 weights, above"),
        (t7(Torch("nn.Sequential", modules=[convolution(1, 2, 3, dW="x")])), "its dW is 'x'; it must be a number"),
    ],
)  # fmt: skip
def test_a_bad_t7_file_is_one_clear_error(tmp_path: Path, data: bytes, words: str) -> None:
    from multiseg_torch.torch7 import snapshot

    path = tmp_path / "weights.t7"
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        snapshot.weights(str(path))
    assert str(path) in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


def test_a_module_that_holds_itself_and_tables_without_end_are_refused(tmp_path: Path) -> None:
    from multiseg_torch.torch7 import snapshot

    own = Torch("nn.Sequential")
    own.fields["modules"] = [own]
    (tmp_path / "own.t7").write_bytes(t7(own))
    with pytest.raises(ModelError, match="contains itself"):
        snapshot.weights(str(tmp_path / "own.t7"))
    writer = Writer()
    for index in range(20_000):
        writer.integer(3, index + 1, 1, 2, 1)
        writer.out += b"a"
    (tmp_path / "deep.t7").write_bytes(bytes(writer.out))
    with pytest.raises(ModelError, match="nest too deeply"):
        snapshot.weights(str(tmp_path / "deep.t7"))


def test_damaged_files_end_in_an_error_or_a_network_never_in_anything_else(tmp_path: Path) -> None:
    from multiseg_torch.torch7 import snapshot

    numbers = np.random.default_rng(3)
    path, errors = tmp_path / "a.t7", 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for sound in (t7(network()), t7(network(), True)):
        heads = [i for i in range(len(sound)) if len(sound) < 4000 or not i % 1500 > 300]
        for _ in range(500):
            damaged = bytearray(sound)
            for _ in range(int(numbers.integers(1, 4))):
                at = int(numbers.choice(heads))
                damaged[at] = (
                    int(numbers.integers(0, 256)) if damaged[at : at + 1].isalnum() else int(numbers.integers(48, 58))
                )
            if numbers.random() < 0.2:
                damaged = damaged[: int(numbers.integers(0, len(damaged)))]
            path.write_bytes(bytes(damaged))
            try:
                snapshot.weights(str(path))
            except ModelError as error:
                errors += 1
                assert "\n" not in str(error)
    assert errors > 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 1024  # KiB


def test_objects_of_before_version_2_mean_what_they_meant(tmp_path: Path) -> None:
    """running_std holds 1 / sqrt(variance + eps), and a Dropout without v2 multiplies by 1 - p in inference."""
    import torch
    from multiseg_torch import files

    numbers = np.random.default_rng(3)
    mean, variance = numbers.normal(size=4), numbers.random(4) + 0.5
    norm = Torch(
        "nn.SpatialBatchNormalization", eps=1e-3, momentum=0.1, affine=False,
        running_mean=tensor(mean), running_std=tensor(1 / np.sqrt(variance + 1e-3)),
    )  # fmt: skip
    old, new = Torch("nn.Dropout", p=0.5), Torch("nn.Dropout", p=0.5, v2=True)
    path = tmp_path / "old.t7"
    path.write_bytes(t7(Torch("nn.Sequential", modules=[norm, old, new])))
    x = torch.randn(2, 4, 3, 3)
    with torch.no_grad():
        output = files.load(str(path), (4, 3, 3)).model.eval()(x).numpy()
    expected = (x.numpy() - mean[:, None, None]) / np.sqrt(variance + 1e-3)[:, None, None] / 2
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
