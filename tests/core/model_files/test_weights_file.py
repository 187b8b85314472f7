"""The neutral weights file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from multiseg.errors import ModelError
from multiseg.model_files import weights_file
from multiseg.model_files.reading import read_weights
from multiseg.model_files.weights_file import NeutralWeights

WEIGHTS = {"conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), "conv1.bias": np.ones(2, np.float32)}
STATE = {"momentum/conv1.weight": np.full((2, 3, 2, 2), 0.5, np.float32)}


def test_all_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights_file.write(path, NeutralWeights(WEIGHTS, "BGR", STATE, {"name": "sgd", "step": 7}))
    found = weights_file.read(path)
    assert (found.channel_order, found.solver) == ("BGR", {"name": "sgd", "step": 7})
    np.testing.assert_equal(dict(found.weights), WEIGHTS)
    np.testing.assert_equal(dict(found.state), STATE)


@pytest.mark.parametrize(
    ("names", "parameters", "expected"),
    [
        (["net.a.w", "net.b.w"], ["a.w", "b.w"], ["a.w", "b.w"]),
        (["m.net.a.w", "m.net.b.w", "m.net.c.w", "loss.w"], ["a.w", "b.w"], ["a.w", "b.w", "c.w"]),
        (["net.a.w", "net.b.w", "net.c.w"], ["a.w", "b.w", "head.w"], ["a.w", "b.w", "c.w"]),
        (["net.a.w", "b.w"], ["a.w", "b.w"], None),  # a name fits as it is
        (["x.a.w", "y.a.w"], ["a.w"], None),  # two prefixes
        (["net.a.w", "net.c.w"], ["a.w", "b.w", "head.w"], None),  # too few names
        (["neta.w"], ["a.w"], None),
    ],
)
def test_the_prefix_of_a_module_around_the_network_is_left_out(
    names: list[str], parameters: list[str], expected: list[str] | None
) -> None:
    content = NeutralWeights({name: np.full(1, index, np.float32) for index, name in enumerate(names)}, "BGR")
    found = content.without_prefix(parameters)
    assert list(found.weights) == (names if expected is None else expected) and found.channel_order == "BGR"
    assert [int(value[0]) for value in found.weights.values()] == list(range(len(found.weights)))


def test_a_solver_is_no_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights_file.write(path, NeutralWeights(WEIGHTS, state=STATE))
    assert set(read_weights(path)) == set(WEIGHTS)
    assert weights_file.read(path).solver is None
    with safe_open(path, framework="np") as file:
        assert set(file.keys()) == {*WEIGHTS, "solver/momentum/conv1.weight"}
        assert file.metadata() == {"format": "multiseg"}


def test_views_are_written_as_they_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    flipped = WEIGHTS["conv1.weight"][:, ::-1].transpose(1, 0, 3, 2)
    weights_file.write(path, NeutralWeights({"a.weight": flipped, "b.weight": np.float64([[1, 2]])}))
    found = weights_file.read(path).weights
    np.testing.assert_array_equal(found["a.weight"], flipped)
    assert found["b.weight"].dtype == np.float32


def test_a_file_from_elsewhere_is_weights_alone(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"solver/x.weight": np.ones(3, np.float16)}, path, {"format": "pt"})
    found = weights_file.read(path)
    assert found.channel_order is None
    assert found.weights["solver/x.weight"].dtype == np.float32
    assert not found.state


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights_file.write(path, NeutralWeights(WEIGHTS))
    before = path.read_bytes()
    with pytest.raises(ModelError, match=r"w\.safetensors: weight 'solver/a\.weight'"):
        weights_file.write(path, NeutralWeights({"solver/a.weight": np.ones(2, np.float32)}))
    with pytest.raises(TypeError):
        weights_file.write(path, NeutralWeights(WEIGHTS, solver={"rate": object()}))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"channel_order": "GRB"}, r"channel_order='GRB' in its metadata: must be RGB or BGR"),
        ({"solver": "{"}, "solver in its metadata is not valid JSON: "),
        ({"solver": "[]"}, "solver in its metadata is not a JSON object"),
    ],
)
def test_metadata_that_cannot_be_are_told(tmp_path: Path, metadata: dict[str, str], why: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file(WEIGHTS, path, {"format": "multiseg", **metadata})
    with pytest.raises(ModelError, match=why):
        weights_file.read(path)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights_file.write(path, NeutralWeights(WEIGHTS))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ModelError, match=r"w\.safetensors: cannot be read as safetensors"):
        weights_file.read(path)
