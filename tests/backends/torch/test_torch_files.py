"""PyTorch's network files: Torch7's Lua in its sandbox, and Python modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.errors import ModelError

pytestmark = pytest.mark.needs("torch")

MODELS = Path(__file__).parents[3] / "models/multiseg_models"
SHAPE = (1, 32, 32)


def load(path: Path) -> Any:
    from multiseg_torch import files

    return files.load(str(path), SHAPE)


@pytest.mark.parametrize("name", ["fcn.lua", "fcn_torch.py"])
def test_the_fcn_has_torch7s_layers_start_values_and_loss(name: str) -> None:
    loaded = load(MODELS / name)
    assert (loaded.batch_size, loaded.val_batch_size) == (4, 32)
    assert type(loaded.loss).__name__ == "SmoothL1Loss"
    parameters = list(loaded.model.parameters())
    assert [tuple(p.shape) for p in parameters] == [
        (32, 1, 3, 3), (32,), (1024, 32, 16, 16), (1024,), (1024, 1, 16, 16), (1,),
    ]  # fmt: skip
    # uniform within 1/sqrt(fan in): 9, 32*16*16, and for the deconvolution 1024*16*16, that is 1/512
    for parameter, bound in zip(parameters, (1 / 3, 1 / 3, 8192**-0.5, 8192**-0.5, 1 / 512, 1 / 512), strict=True):
        assert parameter.abs().max() <= bound
        assert parameter.numel() == 1 or parameter.abs().max() > 0.8 * bound
        assert parameter.numel() < 1000 or abs(float(parameter.detach().std()) / (bound / 3**0.5) - 1) < 0.05


def test_a_lua_file_trains(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    job = multiseg.Job(dataset=dataset, backend="torch", model=MODELS / "fcn.lua", epochs=1, seed=1)
    with job.train(tmp_path / "run", progress=False) as run:
        assert run.settings["batch_size"] == 4
        assert run.history[-1]["l1"] < run.history[0]["l1"]


def test_divisions_give_whole_numbers_as_in_torch7(tmp_path: Path) -> None:
    path = tmp_path / "net.lua"
    path.write_text(
        "return function(p) return {model = nn.SpatialConvolution(1, 64/2, 3, 3, 1, 1, (3-1)/2), trainBatchSize = 8/2} end"
    )
    loaded = load(path)
    assert loaded.model.weight.shape == (32, 1, 3, 3) and loaded.model.padding == (1, 1)
    assert loaded.batch_size == 4


def test_a_python_file_may_use_dataclasses(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "@dataclass\nclass Settings:\n    width: int = 3\n"
        "def network(params):\n    return nn.Conv2d(1, Settings().width, 1)\n"
    )
    assert load(path).model.out_channels == 3


ONE = "from torch import nn\nclass One(nn.Module):\n    pass\n"


@pytest.mark.parametrize(
    ("python", "made"),
    [
        (ONE, "One"),
        (f"{ONE}def network(params):\n    return nn.Tanh()", "Tanh"),
        (f"{ONE}def network():\n    return nn.Tanh()", "Tanh"),
        (
            f"{ONE}def build_model(params, width=4):\n    return {{'model': nn.Linear(params['inputShape'][0], width)}}",
            "Linear",
        ),
        (f"{ONE}def get_model(pretrained=False):\n    return nn.Tanh()", "Tanh"),
        (f"{ONE}class Two(One):\n    pass\nmodel = Two()", "Two"),
        (f"{ONE}network = nn.Sequential(One())", "Sequential"),
        ("from torch import nn\nclass A(nn.Module):\n    def __init__(self, params):\n        super().__init__()", "A"),
        ("from torch import nn\nfrom beside import Beside\nnet = Beside()", "Beside"),
    ],
)
def test_the_network_of_a_python_file(tmp_path: Path, python: str, made: str) -> None:
    (tmp_path / "beside.py").write_text("from torch import nn\nclass Beside(nn.Module):\n    pass\n")
    (tmp_path / "net.py").write_text(python)
    assert type(load(tmp_path / "net.py").model).__name__ == made


@pytest.mark.parametrize(
    "lua",
    [
        "return cudnn.SpatialConvolution(1, 4, 3, 3)",  # the program that loads the file has required cudnn
        "require 'image' require 'optim' require 'nngraph' return nn.SpatialConvolution(1, 4, 3, 3)",
        "local n, k = table.unpack({4, 3}) return nn.SpatialConvolution(1, n, k, k)",
        "local sizes = table.pack(4, 3) return nn.SpatialConvolution(1, sizes[1], 3, sizes[sizes.n])",
        "local n = cudnn and 4 or 5 return nn.SpatialConvolution(1, n, 3, 3)",
        "if pcall(require, 'cudnn') then error('not within pcall') end return nn.SpatialConvolution(1, 4, 3, 3)",
    ],
)
def test_what_torch7_and_its_programs_provide(tmp_path: Path, lua: str) -> None:
    (tmp_path / "net.lua").write_text(lua)
    model = load(tmp_path / "net.lua").model
    assert tuple(model.weight.shape) == (4, 1, 3, 3)


@pytest.mark.parametrize(
    ("lua", "words"),
    [
        ("x = = 3", ":1: unexpected symbol near '='"),
        ("return 3", "must `return function(params)"),
        ("return function(p) return 3 end", "returns number; it must"),
        ("return function(p) return {loss = nn.MSECriterion()} end", "returns nil as its model"),
        (
            "return function(p)\n\n   return {model = nn.Foo(3)}\nend",
            ":3: attempt to call field 'Foo' (a nil value); nn.Foo is not supported, supported are: Abs",
        ),
        (
            "return function(p) return {model = nn.SpatialConvolution(1)} end",
            ":1: nn.SpatialConvolution: nOutputPlane must be a number, got nil",
        ),
        ("return function(p) os.execute('ls') end", ":1: attempt to index global 'os' (a nil value)"),
        ("return function(p) io.open('x', 'w') end", "global 'io'"),
        ("return function(p) package.loadlib('x', 'y') end", "global 'package'"),
        ("return function(p) debug.sethook() end", "global 'debug'"),
        ("return function(p) load('return 1')() end", "global 'load'"),
        ("return function(p) require('ffi') end", "module 'ffi' is not provided"),
        ("return function(p) return python.eval('1') end", "global 'python'"),
        ("return function(p) while true do end end", "runs too long"),
        ("return function(p) while true do pcall(function() while true do end end) end end", "runs too long"),
        ("return function(p) coroutine.wrap(function() while true do end end)() end", "global 'coroutine'"),
        (
            "return function(p) return string.rep('x', 1e10) end",
            "string.rep: 10000000000 times 1 bytes; at most 67108864 bytes",
        ),
        ("return function(p) local t = {} for i = 1, 1e12 do t[i] = {i} end end", "takes more than 256 MiB"),
        ("\x1bLua", "is compiled Lua"),
    ],
)
def test_a_bad_lua_file_is_one_clear_error(tmp_path: Path, lua: str, words: str) -> None:
    path = tmp_path / "net.lua"
    path.write_text(lua)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


@pytest.mark.parametrize(
    ("python", "words"),
    [
        ("x = = 3", ":1: invalid syntax"),
        ("import torch\n\nraise ValueError('no')", ":3: ValueError: no"),
        ("x = 1", "defines 0 nn.Module classes; define a function network(params)"),
        ("def network(params):\n    return 3", "gives int as its model"),
        ("def network(params):\n    return {'loss': 3}", "gives NoneType as its model"),
        (
            "from torch import nn\ndef network(params):\n    return {'model': nn.ReLU(), 'trainBatchSize': 0}",
            "trainBatchSize is 0",
        ),
    ],
)
def test_a_bad_python_file_is_one_clear_error(tmp_path: Path, python: str, words: str) -> None:
    path = tmp_path / "net.py"
    path.write_text(python)
    with pytest.raises(ModelError) as caught:
        load(path)
    assert str(path) in str(caught.value) and words in str(caught.value)


def test_a_lua_file_out_of_time_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiseg_torch.torch7 import lua

    from multiseg.worker.choice import Choice

    path = tmp_path / "net.lua"
    path.write_text("local t = {}\nfor i = 1, 1e9 do\n   table.insert(t, 1, i)\nend")
    monkeypatch.setattr(lua, "SECONDS", 1)
    with pytest.raises(ModelError, match=r"net\.lua:[23]: takes longer than 1 seconds"):
        lua.run(Choice(path, path.parent), {"nclasses": None})


def test_a_python_file_is_read_anew_and_its_folder_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.dont_write_bytecode", False)
    path = tmp_path / "net.py"
    for channels in (3, 4):  # of one size and second: Python's cache would not tell them apart
        path.write_text(f"from torch import nn\n\ndef network(params):\n    return nn.Conv2d(1, {channels}, 1)\n")
        assert load(path).model.out_channels == channels
    assert list(tmp_path.iterdir()) == [path]
