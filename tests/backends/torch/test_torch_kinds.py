"""PyTorch's and Torch7's files are told from others by their content. Needs no framework."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from multiseg.errors import ModelError
from multiseg.model_files.kinds import kind_of

NETS = Path(__file__).parents[2] / "nets"
T7_MODEL = struct.pack("<iii3si13s", 4, 1, 3, b"V 1", 13, b"nn.Sequential")
T7_VECTOR = struct.pack("<iii3si17s", 4, 1, 3, b"V 1", 17, b"torch.FloatTensor")


@pytest.mark.parametrize("name", ["net.lua", "net.txt", "net"])
@pytest.mark.parametrize(
    "text",
    [
        "require 'nn'\nnet = nn.Sequential()\nreturn net",
        "-- a network\nfunction make(p)\n  return nn.Sequential()\nend",
        "local net = nn.Sequential()",
        "return function(params)\n  return {model = build(params)}\nend",
        "\n\nif pcall(function() require('cudnn') end) then\n  backend = cudnn\nend\nlocal a",
        "\x1bLuaQ",
    ],
)
def test_lua_is_told_from_its_text(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert kind_of(tmp_path / name, "network")[1].name == "Torch7 network"


@pytest.mark.parametrize(
    ("data", "holds", "kind"),
    [
        (b"import torch.nn as nn\n\nclass A(nn.Module): pass", "network", "PyTorch module"),
        (b'"""A network."""\nfrom torch import nn', "network", "PyTorch module"),
        (b"import torchvision\n", "network", "PyTorch module"),
        (T7_MODEL, "network", "Torch7 model"),
        (T7_MODEL, "weights", "Torch7 weights"),
        (T7_VECTOR, "weights", "Torch7 weights"),
        (b"4\n1\n3\nV 1\n13\nnn.Sequential\n3\n2\n1\n", "network", "Torch7 model"),
        (b"4\n1\n13\nnn.Sequential\n3\n2\n1\n", "network", "Torch7 model"),  # before there were versions
        (struct.pack("<iiiii5s", 3, 1, 2, 2, 5, b"model") + T7_MODEL, "network", "Torch7 model"),
        (b"PK\x03\x04" + bytes(26) + b"weights/data.pkl", "weights", "PyTorch weights"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "weights", "PyTorch weights"),  # torch.save before 1.6
    ],
)
def test_other_files_are_told_from_their_first_bytes(tmp_path: Path, data: bytes, holds: str, kind: str) -> None:
    (tmp_path / "file").write_bytes(data)
    assert kind_of(tmp_path / "file", holds)[1].name == kind  # type: ignore[arg-type]


def test_the_networks_of_all_frameworks_are_told_apart() -> None:
    for path in NETS.iterdir():
        if not path.is_file():
            continue
        backend = {".prototxt": "caffe", ".lua": "torch"}.get(path.suffix, path.stem.rpartition("_")[2])
        assert kind_of(path, "network")[0].name == backend, path


def test_a_vector_of_weights_is_no_network(tmp_path: Path) -> None:
    (tmp_path / "a.t7").write_bytes(T7_VECTOR)
    with pytest.raises(ModelError, match="is a Torch7 weights, which contains weights; expected is: "):
        kind_of(tmp_path / "a.t7", "network")


def test_pytorch_is_recognised_where_another_file_imports_it(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text("import torch.nn as nn\n\ndef build():\n    return nn.ReLU()\n")
    (tmp_path / "numbers_.py").write_text("WIDTH = 3\n")
    texts = {
        '"""A network."""\nfrom .parts import *\n\nclass Net(nn.Module):\n    pass\n': True,
        "from .parts import build\n\ndef network(params):\n    return build()\n": True,
        "from numbers_ import WIDTH\nfrom .absent import x\n": False,
    }
    for text, recognised in texts.items():
        (tmp_path / "net.py").write_text(text)
        if recognised:
            assert kind_of(tmp_path / "net.py", "network")[1].name == "PyTorch module"
        else:
            with pytest.raises(ModelError, match="found text"):
                kind_of(tmp_path / "net.py", "network")


def test_onnx_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    with pytest.raises(ModelError, match=r"net.onnx: ONNX files are written .* but not read; name the network file"):
        kind_of(tmp_path / "net.onnx", "network")
