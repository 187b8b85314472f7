"""PyTorch's weights files: state_dicts however people wrap them, and nothing else."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiseg import convert
from multiseg.errors import ModelError
from multiseg.model_files import kinds

pytestmark = pytest.mark.needs("torch")


def model() -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def read(path: Path) -> Any:
    from multiseg_torch import reader

    return reader.read_weights(str(path))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"param_groups": []}, "best": 0.5},
        lambda state: {"epoch": 1, "model_state_dict": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {name: value.double() if value.is_floating_point() else value for name, value in state.items()},
        lambda state: {name: value.double() for name, value in state.items()},  # the count of batches, too
        lambda state: {**state, "mask_values": [0, 1]},
        lambda state: {
            "model": state,
            "args": argparse.Namespace(lr=0.1, output_dir=Path("out"), best=np.float32(0.5)),
        },
        lambda state: {"state_dict": state, "best_iou": np.float64(0.5), "per_class": np.array(["a", None])},
        lambda state: {"model": "unet", "model_state": state},
        lambda state: {"weights": {f"_orig_mod.module.{name}": value for name, value in state.items()}},
        lambda state: {name: value.numpy() for name, value in state.items()},
        lambda state: {
            "params": {name: np.asfortranarray(value.numpy().astype(">f8")) for name, value in state.items()}
        },
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_read_however_it_is_wrapped(tmp_path: Path, wrap: Any, zipped: bool) -> None:
    import torch

    state, path = model().state_dict(), tmp_path / "weights.pth"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=zipped)
    assert kinds.kind_of(path, "weights")[1].name == "PyTorch weights"
    found = read(path)
    wanted = ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"]  # no count of batches
    assert list(found) == wanted
    assert all(np.array_equal(found[name], state[name]) and found[name].dtype == np.float32 for name in wanted)


def test_weights_of_a_single_layer_have_a_layers_name(tmp_path: Path) -> None:
    import torch
    from torch import nn

    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "a.pt")
    assert list(read(tmp_path / "a.pt")) == ["model.weight", "model.bias"]


@pytest.mark.parametrize("prefix", ["model.", "net.", "a.net."])
def test_the_prefix_of_a_training_program_is_left_out(tmp_path: Path, prefix: str) -> None:
    """PyTorch Lightning stores a network as part of its module, beside what else the module holds."""
    import torch

    network, path = tmp_path / "net.py", tmp_path / "last.ckpt"
    network.write_text("from torch import nn\nnetwork = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))\n")
    state = model().state_dict()
    held = {f"{prefix}{name}": value for name, value in state.items()}
    torch.save({"state_dict": {**held, "loss.weight": torch.ones(2)}, "hyper_parameters": {"lr": 1}}, path)
    convert(path, "pt", tmp_path / "out.pt", source_network=network, input_shape=(1, 8, 8))
    found = torch.load(tmp_path / "out.pt")
    assert list(found) == list(state)
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_names_that_a_file_lacks_are_an_error_with_those_it_has(tmp_path: Path) -> None:
    import torch

    network, path = tmp_path / "net.py", tmp_path / "w.pth"
    network.write_text("from torch import nn\nnetwork = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))\n")
    twice = {f"{prefix}.{name}": value for name, value in model().state_dict().items() for prefix in ("a", "b")}
    torch.save(twice, path)
    with pytest.raises(
        ModelError, match=r"has '0.weight' \(2, 1, 3, 3\); here it is missing from a.0.weight, b.0.weight"
    ):
        convert(path, "safetensors", tmp_path / "out.safetensors", source_network=network, input_shape=(1, 8, 8))


class Reaches:
    """A pickle that runs a program when it is opened."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch reached",)


def save(path: Path, what: Any) -> Path:
    import torch

    torch.save(what, path)
    return path


@pytest.mark.parametrize("name", ["weights.pt", "weights.t7", "net.py"])
def test_a_pickle_that_reaches_out_is_refused_and_not_run(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multiseg_torch import files

    monkeypatch.chdir(tmp_path)
    options = save(tmp_path / "y.pt", {"a": argparse.Namespace(b=[Reaches()])}).read_bytes()
    for data in (pickle.dumps(Reaches()), save(tmp_path / "x.pt", {"a": Reaches()}).read_bytes(), options):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ModelError) as caught:
            read(path)
        assert str(path) in str(caught.value) and "torch.save(model.state_dict(), path)" in str(caught.value)
        with pytest.raises(ModelError):
            kinds.kind_of(path, "network")
        with pytest.raises(ModelError):
            files.load(str(path), (1, 8, 8))
    assert not (tmp_path / "reached").exists()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: save(path, model()), "holds more than tensors, or is damaged, and is not unpickled"),
        (lambda path: save(path, {"lr": 0.1}), "holds no state_dict but lr"),
        (lambda path: save(path, [1, 2]), "holds no state_dict but list"),
        (lambda path: save(path, {}), "holds no state_dict but nothing"),
        (
            lambda path: path.write_bytes(save(path, model().state_dict()).read_bytes()[:900]),
            "is cut short or damaged; write",
        ),
        (
            lambda path: path.write_bytes(save(path, model().state_dict()).read_bytes()[:-20]),
            "is cut short or damaged; write",
        ),
        (lambda path: path.write_bytes(b"\x80\x02garbage"), "or is damaged"),
        (lambda path: path.write_bytes(b""), "is cut short or damaged; write"),
    ],
)
def test_a_bad_weights_file_is_one_clear_error(tmp_path: Path, make: Any, words: str) -> None:
    path = tmp_path / "weights.pt"
    make(path)
    with pytest.raises(ModelError) as caught:
        read(path)
    assert str(path) in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)
