"""Files that are wrong, or mean ill, given to PyTorch's worker: each is one clear error, and the worker lives on."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.lending import lend
from helpers.t7_writer import Torch, t7
from helpers.zoo import SHAPES, load
from multiseg.errors import ModelError
from multiseg.worker.client import Worker

pytestmark = pytest.mark.needs("torch")

SHAPE = [3, 16, 16]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with lend("torch") as worker:
        yield worker


def describe(worker: Worker, path: Path) -> Any:
    return worker.call(
        "read", module="multiseg_torch.reader", function="describe", arguments={"path": str(path), "input_shape": SHAPE}
    )


LUA = {
    "a syntax error": ("local x = 1\nx = = 3", ":2: unexpected symbol near '='"),
    "an unknown module": ("return {\n model = nn.SpatialConvolutions(3, 4)}", ":2: attempt to call field 'SpatialConvolutions' "
                          "(a nil value); nn.SpatialConvolutions is not supported, similar names are: SpatialConvolution"),
    "an unknown criterion": ("return {model = nn.ReLU(), loss = nn.MarginCriterion()}", ":1: attempt to call field"),
    "a wrong argument": ("return nn.Sequential():add(\nnn.SpatialConvolution('3', 4))", ":2: nn.SpatialConvolution: nInputPlane"),
    "an argument of no sense": ("return nn.Sequential():add(nn.SpatialConvolution(3, 4.5, 3, 3))", ":1: nn.SpatialConvolution"),
    "groups that do not divide": ("require 'cudnn' return cudnn.SpatialConvolution(3, 4, 3, 3, 1, 1, 0, 0, 2)",
                                  ":1: nn.SpatialConvolution"),
    "a network beyond all memory": ("return nn.Sequential():add(nn.Linear(2^20, 2^20))", ":1: nn.Linear: the network would"),
    "an endless loop": ("return function(p)\n while true do end\nend", ":2: runs too long"),
    "an endless loop that catches": ("while true do\n pcall(function() while true do end end) end", ":2: runs too long"),
    "an endless metamethod": ("return setmetatable({}, {__index = function(t, k) while true do end end}).x", ":1: runs too long"),
    "endless allocation": ("local t = {}\nfor i = 1, 1e12 do t[i] = {i} end", ":2: takes more than 256 MiB of memory"),
    "endless strings": ("local s = 'x'\nwhile true do s = s .. s end", ":2: takes more than 256 MiB of memory"),
    "string.rep": ("return function(p)\n return ('x'):rep(1e10) end", ":2: string.rep: 10000000000 times 1 bytes; at most"),
    "string.rep of nothing": ("return string.rep('', 2^31 - 1)", ":1: string.rep: 2147483647 times 0 bytes; at most"),
    "unpack of too much": ("local t = {}\nreturn unpack(t, 1, 1e6)", ":2: unpack: elements 1 to 1000000 of a table; at most"),
    "unpack of a count that wraps": ("unpack({}, -2^31 + 2, 2^31 - 2)", ":1: unpack: elements -2147483646 to 2147483646"),
    "unpack beyond integers": ("table.unpack({}, 2^32, 2^32 + 1)", ":1: unpack: elements 4294967296 to 4294967297"),
    "table.concat of too much": ("return table.concat({}, ',', 1, 2^30)", ":1: table.concat: elements 1 to 1073741824"),
    "endless printing": ("while true do\n print(('x'):rep(1000)) end", ":2: prints more than 1048576 bytes"),
    "a pathological pattern": ("local s = ('a'):rep(3000)\nlocal t = s:find(('a-'):rep(6) .. 'b')", ":2: takes longer"),
    "endless filling": ("local l = nn.Linear(1000, 1000)\nfor i = 1, 20000 do l.weight:zero() end return l",
                        "elements to its tensors; shorten its loops"),
    "os.execute": ("os.execute('touch reached')", ":1: attempt to index global 'os' (a nil value)"),
    "io.open": ("return function(p) io.open('reached', 'w') end", ":1: attempt to index global 'io'"),
    "another file": ("require 'weight-init'", ":1: module 'weight-init' is not provided"),
    "paths": ("local paths = require 'paths'\npaths.mkdir('reached')", ":2: paths.mkdir is not provided while"),
    "images": ("require 'image'\nlocal lena = image.lena()", ":2: image.lena is not provided while"),
    "torch.load": ("return torch.load('other.t7')", ":1: torch.load is not provided"),
    "a coroutine": ("coroutine.wrap(function() while true do end end)()", ":1: attempt to index global 'coroutine'"),
    "loaded code": ("loadstring('x = 1')()", ":1: attempt to call global 'loadstring'"),
    "another environment": ("setfenv(1, {})", ":1: attempt to call global 'setfenv'"),
    "arguments of the file": (
        "local w, nClasses = ...\nassert(w)", ":2: assertion failed!; the file takes arguments (w, nClasses) from the program "
        "that loads it, which are nil here; state their values in the file, as in `local w, nClasses = VALUE, VALUE`"),
    "an argument that is used": ("local n = ...\nreturn function(p) return nn.Linear(n * 2, 3) end", ":2: attempt to perform "
                                 "arithmetic on upvalue 'n' (a nil value); the file takes arguments (n) from the program"),
    "an argument of a module": ("local args = {...}\nreturn nn.Linear(3, args[1])", "; the file takes arguments (args) from"),
    "bytecode": ("\x1bLua\x51\0", ":1: is compiled Lua; only source text is run"),
    "nothing returned": ("local net = nn.Sequential()", "returns nil; it must `return function(params)"),
    "no model": ("return function(p) return {loss = nn.MSECriterion()} end", "returns nil as its model"),
    "a criterion as model": ("return {model = nn.MSECriterion()}", "nn.MSECriterion: is not a supported module"),
    "a module as loss": ("return {model = nn.ReLU(), loss = nn.ReLU()}", ":1: nn.ReLU: is not a supported criterion"),
    "a model that holds itself": ("local s = nn.Sequential()\ns:add(s) return s", ":1: nn.Sequential: contains itself"),
    "containers without end": ("local s = nn.ReLU() for i = 1, 20000 do s = nn.Sequential():add(s) end return s", "too deeply"),
    "forward while it is built": ("local y = nn.ReLU():forward(torch.zeros(3))\nprint(y)\nreturn nn.Linear(y:size(1), 2)",
                                  ":3: nn.ReLU:forward is not computed while a network file is loaded; its result cannot"),
    "an element that is random": ("local t = torch.randn(3)\nreturn nn.Linear(t[1], 2)", ":2: the elements of a tensor can"),
    "a module that computes": ("local A = torch.class('nn.A', 'nn.Module')\nfunction A:updateOutput(x) return x * 2 end\n"
                               "return nn.A()",
                               ":2: nn.A: its updateOutput cannot be followed: it computes by itself (*)"),
    "a module that looks at its input": ("local A = torch.class('nn.A', 'nn.Module')\nfunction A:updateOutput(x)\n"
                                         "if x:size(1) > 2 then return x end end\nreturn nn.A()",
                                         ":3: nn.A: its updateOutput cannot be followed: it computes by itself (input:"),
    "another module in training": ("local A = torch.class('nn.A', 'nn.Sequential')\nfunction A:updateOutput(x)\n"
                                   "if self.train then return x end\nreturn self.modules[1]:forward(x) end\n"
                                   "return nn.A():add(nn.ReLU())", "nn.A: its updateOutput computes something else in training"),
    "a class without a parent": ("torch.class('nn.A', 'nn.TemporalModule')", "derives from nn.TemporalModule"),
    "a module without updateOutput": ("torch.class('nn.A', 'nn.Module')\nreturn nn.A()", "nn.A: has no updateOutput"),
    "a graph of no nodes": ("return nn.gModule({nn.ReLU()}, {nn.ReLU()()})", ":1: nn.gModule: inputs[1] is not a node but"),
    "a node that is no input": ("local a, b = nn.ReLU()(), nn.ReLU()()\nreturn nn.gModule({a}, {nn.CAddTable()({a, b})})",
                                ":2: a node without inputs (line 1) is not an input of its graph"),
    "a call with a number": ("return nn.ReLU()(3)", ":1: nn.ReLU is called with number; a graph needs nodes"),
    "add without self": ("local n = nn.Sequential()\nn.add(nn.ReLU())", ":2: nn.ReLU:add needs a module"),
    "a labelHook": ("return {model = nn.ReLU(), labelHook = function(i, l) return i end}", "has a labelHook, which is"),
    "joining the batch": ("return nn.Concat(1):add(nn.ReLU())", ":1: nn.Concat: concatenates along dimension 1"),
    "wrong channels": ("return nn.Sequential():add(nn.ReLU()):add(nn.SpatialConvolution(4, 2, 3, 3))",
                       "layer '1' (Conv2d with weights (2, 4, 3, 3)) is given (3, 16, 16): "),
    "wrong features": ("return nn.Sequential():add(nn.View(-1):setNumInputDims(3)):add(nn.Linear(100, 2))",
                       "layer '1' (Linear with weights (2, 100)) is given (768,): "),
    "a tensor where a table is needed": ("return nn.Sequential():add(nn.CAddTable())", "needs a table of tensors"),
    "weights of another shape": ("local n = nn.Linear(4, 2)\nn.weight = torch.zeros(3)\nreturn nn.Sequential():add(n)",
                                 ":1: nn.Linear: its weight is (2, 4), the file assigns (3,)"),
    "shared weights": ("local a, b = nn.Linear(4, 4), nn.Linear(4, 4)\na.weight = b.weight\nreturn nn.Sequential():add(a):add(b)",
                       ":1: nn.Linear: its weight belongs to another module; sharing"),
    "a number as weights": ("local n = nn.Linear(4, 2) n.weight = 7 return n", ":1: nn.Linear: its weight is 7; it must be"),
    "a MultiCriterion of nothing": ("return {model = nn.ReLU(), loss = nn.MultiCriterion()}", ":1: nn.MultiCriterion: needs"),
}  # fmt: skip
PYTHON = {
    "a syntax error": ("import torch\nx = = 3", ":2: invalid syntax"),
    "an error of its own": ("import torch\n\ndef network(params):\n    raise ValueError('none')", ":4: ValueError: none"),
    "an error of several lines": ("import torch\nraise ValueError('one\\ntwo')", ":2: ValueError: one"),
    "two classes": ("from torch import nn\nclass A(nn.Module): pass\nclass B(nn.Module): pass", "2 nn.Module classes; specify "),
    "two factories": ("import torch\ndef get_model(): pass\ndef build_model(): pass", "functions that build a network; specify"),
    "no class": ("import torch", "defines 0 nn.Module classes; define a function network(params)"),
    "the end of the process": ("import sys, torch\nsys.exit(3)", ":2: SystemExit: 3"),
    "an interruption": ("import torch\nraise KeyboardInterrupt", "KeyboardInterrupt"),
    "a class as model": ("from torch import nn\ndef network(p): return nn.ReLU", "gives type as its model"),
    "no super().__init__()": ("from torch import nn\nclass A(nn.Module):\n    def __init__(self): pass", "does not call super()"),
    "a class with arguments": ("from torch import nn\nclass A(nn.Module):\n    def __init__(self, n): pass", "net.py:A(n=...)"),
    "a missing import": ("import torch\nimport nowhere_to_be_found", ":2: ModuleNotFoundError: No module named"),
    "wrong channels": ("from torch import nn\nclass A(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
                       "        self.conv = nn.Conv2d(1, 2, 3)\n    def forward(self, x): return self.conv(x)",
                       "layer 'conv' (Conv2d with weights (2, 1, 3, 3)) is given (3, 16, 16): "),
    "a batch size of no sense": ("from torch import nn\ndef network(p): return {'model': nn.ReLU(), 'trainBatchSize': 'many'}",
                                 "trainBatchSize is 'many'; it must be a whole number from 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", LUA)
def test_a_bad_lua_file(worker: Worker, tmp_path: Path, what: str) -> None:
    check(worker, tmp_path / "net.lua", *LUA[what])


@pytest.mark.parametrize("what", PYTHON)
def test_a_bad_python_file(worker: Worker, tmp_path: Path, what: str) -> None:
    check(worker, tmp_path / "net.py", *PYTHON[what])


@pytest.mark.parametrize("made", ["nn.ReLU()", "nn.Conv2d(1, 1, 1).requires_grad_(False)"])
def test_a_network_with_nothing_to_train_is_one_for_prediction_only(tmp_path: Path, made: str) -> None:
    path = tmp_path / "net.py"
    path.write_text(f"from torch import nn\ndef network(p): return {made}")
    with pytest.raises(ModelError, match=r"net\.py: has nothing to train: every parameter is frozen or"):
        load("torch", path, *SHAPES["autoencoder"])
    load("torch", path, *SHAPES["autoencoder"], solver=None).close()


def check(worker: Worker, path: Path, text: str, words: str) -> None:
    path.write_text(text)
    with pytest.raises(ModelError) as caught:
        describe(worker, path)
    assert str(path) in str(caught.value) and words in str(caught.value) and "\n" not in str(caught.value)


class Reaches:
    """A pickle that runs a program when it is opened."""

    def __reduce__(self) -> object:
        import os

        return os.system, ("touch /tmp/multiseg-reached",)


@pytest.mark.parametrize("name", ["net.lua", "net.py", "net.t7"])
def test_a_pickle_in_disguise(worker: Worker, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Reaches()))
    with pytest.raises(ModelError):
        describe(worker, tmp_path / name)
    assert not Path("/tmp/multiseg-reached").exists()


def shared(levels: int, name: str, leaf: Torch) -> Torch:
    """Containers that hold the next one twice: the file is small, a walk over it takes 2 ** levels steps."""
    for _ in range(levels):
        leaf = Torch(name, modules=[leaf, leaf], criterions=[leaf, leaf], dimension=2)
    return leaf


def tables(levels: int, *then: Torch) -> Torch:
    """A table of two tables of two tables and so on, which are 2 ** levels values, and what is done with it."""
    both = Torch("nn.ConcatTable", modules=[Torch("nn.Identity"), Torch("nn.Identity")])
    return Torch("nn.Sequential", modules=[both] * levels + list(then))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (shared(40, "nn.Sequential", Torch("nn.ReLU")), "modules for one image, above 20000"),
        (shared(40, "nn.ConcatTable", Torch("nn.ReLU")), "modules for one image, above 20000"),
        (tables(40, Torch("nn.FlattenTable")), "makes a table of more than 10000 values"),
        (tables(40, *[Torch("nn.SelectTable", index=1)] * 40), "makes a table of more than 10000 values"),
        (
            {"model": Torch("nn.ReLU"), "loss": shared(40, "nn.MultiCriterion", Torch("nn.MSECriterion"))},
            "more than 1000 crit",
        ),
    ],
)
def test_files_whose_content_multiplies_by_sharing(worker: Worker, tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / "net.t7").write_bytes(t7(content))
    with pytest.raises(ModelError) as caught:
        describe(worker, tmp_path / "net.t7")
    assert str(tmp_path / "net.t7") in str(caught.value) and words in str(caught.value)


def test_shared_modules_within_bounds_are_described(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "net.t7").write_bytes(t7(shared(5, "nn.Sequential", Torch("nn.ReLU"))))
    assert len(describe(worker, tmp_path / "net.t7")["layers"]) == 32


def test_ascii_tables_on_one_line_are_read_in_linear_time(worker: Worker, tmp_path: Path) -> None:
    count = 60_000
    text = t7({"model": {key: float(key) for key in range(1, count)}}, ascii=True)
    (tmp_path / "net.t7").write_bytes(text.replace(b"\n", b" ").replace(b" ", b"\n", 6) + b"\n")
    with pytest.raises(ModelError, match="holds no module of nn"):
        describe(worker, tmp_path / "net.t7")


def test_the_worker_lives_on(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "net.lua").write_text("return nn.Sequential():add(nn.ReLU())")
    describe(worker, tmp_path / "net.lua")


def test_a_network_with_a_table_as_output_is_one_for_description_only(tmp_path: Path) -> None:
    path = tmp_path / "net.lua"
    path.write_text("return nn.ConcatTable():add(nn.ReLU()):add(nn.Abs())")
    message = (
        r"net\.lua: gives a list; training and testing want one output; cut the network to one, with outputs='NAME'"
    )
    with pytest.raises(ModelError, match=message.replace("'NAME'", "NAME")):
        load("torch", path, *SHAPES["autoencoder"])
