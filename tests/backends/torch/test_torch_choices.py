"""Networks chosen within Python and Lua files, FILE:NAME(ARGUMENTS): classes, functions, packages, options, and their runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import multiseg
from multiseg.errors import ModelError
from multiseg.model_files import choosing

pytestmark = pytest.mark.needs("torch")

SHAPE = (1, 32, 32)
CLASSES = """from torch import nn

class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, x):
        return self.conv(x).relu()

class Net(nn.Sequential):
    def __init__(self, width=4, out=1):
        super().__init__(Block(1, width), nn.Conv2d(width, out, 1))

def create(params, width=2):
    return {"model": Net(width), "trainBatchSize": 7}

small = Net(2)
"""
PACKAGE = {
    "nets/__init__.py": "raise_if_imported_twice = True\n",
    "nets/unet/__init__.py": "from .model import UNet\n",
    "nets/unet/model.py": "from torch import nn\nfrom .parts import Block\nfrom ..width import WIDTH\n"
    "from nets.width import again\n"
    "class UNet(nn.Sequential):\n    def __init__(self, outputs):\n"
    "        super().__init__(Block(1, WIDTH), nn.Conv2d(WIDTH, outputs, 1))\n        assert again is WIDTH or again == WIDTH\n",
    "nets/unet/parts.py": "from torch import nn\nimport width_of_kernel\n\nclass Block(nn.Conv2d):\n"
    "    def __init__(self, i, o):\n        super().__init__(i, o, width_of_kernel.K, padding=1)\n",
    "nets/unet/width_of_kernel.py": "K = 3\n",
    "nets/width.py": "WIDTH = again = 5\n",
}
RESNET = """
local nn = require 'nn'
require 'cunn'
local Convolution = cudnn.SpatialConvolution
local parts = require 'models/parts'
local function createModel(opt)
   local cfg = { [18] = {2, 4}, [34] = {3, 8} }
   assert(cfg[opt.depth], 'Invalid depth: ' .. tostring(opt.depth))
   local count, width = unpack(cfg[opt.depth])
   local model = nn.Sequential():add(Convolution(1, width, 3, 3, 1, 1, 1, 1))
   for i = 1, count do model:add(parts.block(width)) end
   return model:add(Convolution(width, opt.classes or 1, 1, 1))
end
return createModel
"""
GLOBAL = """
function createModel(nGPU)
   local model = nn.Sequential():add(nn.SpatialConvolution(1, nClasses, 3, 3, 1, 1, nGPU, nGPU))
   return model
end
function createCriterion() return nn.ClassNLLCriterion() end
"""


def load(word: str | Path, **options: Any) -> Any:
    from multiseg_torch import files

    return files.load(str(choosing.path_of(word, options=options.pop("options", None), **options)), SHAPE)


def shapes(word: str | Path, **options: Any) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in load(word, **options).model.parameters() if parameter.dim() > 1]


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_class_a_function_and_an_object_of_a_file_can_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(CLASSES)
    assert shapes(f"{file}:Net()") == shapes(f"{file}:Net") == [(4, 1, 3, 3), (1, 4, 1, 1)]
    assert shapes(f"{file}:Net(3, out=2)") == [(3, 1, 3, 3), (2, 3, 1, 1)]
    assert shapes(f"{file}:Block(1, outputs=6)") == [(6, 1, 3, 3)]
    assert shapes(f"{file}:small") == [(2, 1, 3, 3), (1, 2, 1, 1)]
    loaded = load(f"{file}:create")
    assert loaded.batch_size == 7 and loaded.model[1].in_channels == 2
    assert multiseg.describe(f"{file}:Net(3)", SHAPE).source == "net.py:Net(3)"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", r"2 nn.Module classes; specify the one that is meant: \S*net.py:Net\(\), \S*net.py:Block\(inputs=..., outputs"),
        (":Unet()", r"defines no Unet; specify one of: \S*net.py:Net\(\)"),
        (":Block(1)", r"Block: missing a required argument: 'outputs'; its arguments are: \S*net.py:Block\(inputs=..., outputs"),
        (":Net(depth=2)", r"Net: got an unexpected keyword argument 'depth'"),
    ],
)  # fmt: skip
def test_an_ambiguous_file_lists_the_words_to_type(tmp_path: Path, word: str, message: str) -> None:
    file = tmp_path / "net.py"
    file.write_text(CLASSES.replace("def create(", "def other(").replace("small =", "little ="))
    with pytest.raises(ModelError, match=message):
        load(f"{file}{word}")


def test_a_package_imports_from_its_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, PACKAGE)
    expected = [(5, 1, 3, 3), (2, 5, 1, 1)]
    for word in (
        "nets/unet/model.py:UNet(2)", "nets/unet/__init__.py:UNet(2)", "nets.unet:UNet(outputs=2)", "nets.unet.model:UNet(2)",
    ):  # fmt: skip
        assert shapes(tmp_path / word) == expected
    (tmp_path / "nets/__init__.py").unlink()  # a folder is a package without it
    assert shapes(tmp_path / "nets/unet/model.py:UNet(2)") == expected


def test_a_module_of_an_installed_package_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "site-packages"
    write(packages, {"zoo_of_nets/__init__.py": "from .net import *\n", "zoo_of_nets/net.py": CLASSES})
    monkeypatch.syspath_prepend(packages)
    assert shapes("zoo_of_nets.net:Net(width=3)") == shapes("zoo_of_nets:Net(3)") == [(3, 1, 3, 3), (1, 3, 1, 1)]
    own = choosing.path_of("zoo_of_nets:Net(3)")
    assert own.name == "Net.py" and "zoo_of_nets.Net(3)" in own.read_text()


def test_a_run_keeps_the_choice_and_resumes_without_the_repository(dataset: multiseg.Dataset, tmp_path: Path) -> None:
    write(tmp_path / "repository", PACKAGE)
    word = f"{tmp_path / 'repository/nets/unet/model.py'}:UNet(outputs=1)"
    job = multiseg.Job(
        dataset=dataset, backend="torch", model=word, epochs=2, seed=1, threads=1, loss="l1", learning_rate=1e-5
    )
    stop = multiseg.training.signals.Stop()

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            stop.ask()

    with pytest.raises(multiseg.errors.TrainingStopped):
        job.train(tmp_path / "run", progress=interrupt, stop=stop)
    with pytest.raises(multiseg.errors.RunError, match=r"model='model.UNet.json'|has changed since"):
        other = multiseg.Job(**{**vars(job), "model": word.replace("outputs=1", "1")})
        other.train(tmp_path / "run", resume=True, progress=False)
    shutil.rmtree(tmp_path / "repository")
    with job.train(tmp_path / "run", resume=True, progress=False) as run:
        assert run.summary["status"] == "finished"
        assert run.topology.source == "model.py:UNet(outputs=1)"
        assert run.worker().call("get_weights")["1.weight"].shape == (1, 5, 1, 1)


def test_functions_of_lua_files_take_options_and_files_beside_them(tmp_path: Path) -> None:
    parts = "local M = {}\nfunction M.block(n)\n   return paths.dofile('models/conv.lua')(n)\nend\nreturn M\n"
    conv = "return function(n) return nn.SpatialConvolution(n, n, 1, 1) end\n"
    write(tmp_path, {"models/resnet.lua": RESNET, "models/parts.lua": parts, "models/conv.lua": conv})
    word = tmp_path / "models/resnet.lua:createModel"
    small = [(4, 1, 3, 3), (4, 4, 1, 1), (4, 4, 1, 1), (1, 4, 1, 1)]
    assert shapes(word, options={"opt.depth": 18}) == small
    assert shapes(tmp_path / "models/resnet.lua", options={"opt.depth": 18}) == small  # the function that it returns
    assert shapes(word, options={"opt.depth": 34, "opt.classes": 3})[-1] == (3, 8, 1, 1)
    with pytest.raises(ModelError, match=r"resnet.lua:8: Invalid depth: nil"):
        load(word)
    files = load(word, options={"opt.depth": 18}).files
    assert set(files) == {"parts.lua", "conv.lua"}


def test_global_functions_and_variables_of_lua_files(tmp_path: Path) -> None:
    file = tmp_path / "alexnet.lua"
    file.write_text(GLOBAL)
    assert shapes(f"{file}:createModel(1)", options={"nClasses": 6}) == [(6, 1, 3, 3)]
    with pytest.raises(
        ModelError, match=r"returns nil; .* or specify one of its functions: \S*alexnet.lua:createCriterion\(\), "
    ):
        load(file)
    with pytest.raises(
        ModelError, match=r"alexnet.lua: defines no function model; it defines: createCriterion, createModel"
    ):
        load(f"{file}:model")
    with pytest.raises(
        ModelError, match=r"alexnet.lua:3: nn.SpatialConvolution: nOutputPlane must be a number, got nil"
    ):
        load(f"{file}:createModel(1)")


def test_lua_files_outside_the_folders_are_not_read(tmp_path: Path) -> None:
    write(
        tmp_path, {"secret.lua": "return nn.Identity()", "a/b/c/d/net.lua": "return dofile('../../../../secret.lua')"}
    )
    (tmp_path / "a/b/c/d/secret.txt").write_text("return nn.Identity()")
    for name in ("../../../../secret.lua", str(tmp_path / "secret.lua"), "secret.txt", "/etc/hostname"):
        (tmp_path / "a/b/c/d/net.lua").write_text(f"return dofile('{name}')")
        with pytest.raises(ModelError, match="there is no file"):
            load(tmp_path / "a/b/c/d/net.lua")


def test_a_network_with_several_outputs_is_described_and_says_that_training_needs_one(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1)\n\n"
        "    def forward(self, x):\n        y = self.a(x)\n        return {'aux': y, 'out': [self.b(y)]}\n"
    )
    topology = multiseg.describe(f"{file}:Net()", SHAPE)
    assert topology.outputs == ("a", "b") and [topology.shapes[name][0] for name in topology.outputs] == [2, 3]
    assert topology.titles == ("aux", "out")
    inner = multiseg.describe(f"{file}:Net()", SHAPE, outputs=["aux"])
    assert inner.outputs == ("a",) and [layer.name for layer in inner.layers] == ["a"]
    with pytest.raises(
        ModelError, match=r"net.py:Net\(\): outputs='ax': no layer or output has this name; similar names: aux"
    ):
        multiseg.describe(f"{file}:Net()", SHAPE, outputs=["ax"])


def test_a_network_is_cut_at_the_call_of_a_module_that_its_description_names(tmp_path: Path) -> None:
    """A module that is called twice is two layers; its other calls, and layers that overwrite its output, do not matter."""
    import torch
    from multiseg_torch import selecting
    from multiseg_torch.describing import tracing

    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.a, self.b, self.c = (nn.Conv2d(1, 1, 3, padding=1) for _ in range(3))\n"
        "        self.relu = nn.ReLU(inplace=True)\n\n"
        "    def forward(self, x):\n        return self.c(self.relu(self.b(self.relu(self.a(x)))))\n"
    )
    images = torch.randn(2, *SHAPE)
    for name in ("a", "relu", "relu:2"):
        path = str(choosing.path_of(f"{file}:Net()", outputs=[name]))
        layers = [layer.name for layer in multiseg.describe(path, SHAPE).layers]
        model = load(path).model.eval()
        with torch.no_grad():
            expected = model.a(images)
            for layer in layers[1:]:
                expected = model.b(expected) if layer == "b" else expected.relu()
            selecting.select(path, model, [name], images)
            output, activations = tracing.activations_of(model, images)
            assert torch.equal(output, expected) and torch.equal(model(images), expected), name
        assert (activations[name] == expected.numpy()).all()


ABSENT = """from torch import nn
from package_that_nobody_has import models
from package_that_nobody_has.vision import helper
try:
    import other_package_that_nobody_has
except ImportError:
    other_package_that_nobody_has = None

def plain():
    assert other_package_that_nobody_has is None
    return nn.Conv2d(1, 2, 1)

def pretrained():
    return models.resnet18(pretrained=True)

def derived():
    class Net(models.resnet.ResNet):
        pass
    return Net()
"""


def test_packages_around_the_network_need_not_be_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only their use is an error, and a file that has an alternative takes it; any other package must be installed."""
    import sys

    from multiseg_torch import absent

    file = tmp_path / "net.py"
    file.write_text(ABSENT)
    with pytest.raises(ModelError, match=r"net.py:2: ModuleNotFoundError: No module named 'package_that_nobody_has'"):
        load(f"{file}:plain")
    names = {"package_that_nobody_has", "other_package_that_nobody_has"}
    monkeypatch.setattr(absent, "PACKAGES", frozenset(names))
    assert shapes(f"{file}:plain") == [(2, 1, 1, 1)]
    for function, name in (("pretrained", "models.resnet18"), ("derived", "models.resnet.ResNet")):
        message = f"ImportError: package_that_nobody_has.{name} is needed, but package_that_nobody_has is not installed"
        with pytest.raises(ModelError, match=message):
            load(f"{file}:{function}")
    assert not names.intersection(sys.modules)


def test_constant_channels_are_computed_from_the_others(tmp_path: Path) -> None:
    """As ENet pads its channels; a Softmax without dim is over the channels. Against PyTorch's own output."""
    import numpy as np
    import torch

    from multiseg import reference

    file = tmp_path / "net.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.last = nn.Softmax()\n\n    def forward(self, x):\n"
        "        n, c, h, w = x.size()\n"
        "        return self.last(torch.cat((torch.ones(n, 3, h, w), x, torch.zeros(n, 5, h, w)), 1))\n"
    )
    topology = multiseg.describe(f"{file}:Net", (2, 4, 5))
    assert [layer.type for layer in topology.layers] == ["Mul", "Add", "Slice", "Mul", "Slice", "Concat", "Softmax"]
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 5))
    expected = torch.softmax(torch.cat((torch.ones(1, 3, 4, 5), torch.tensor(x), torch.zeros(1, 5, 4, 5)), 1), 1)
    assert np.abs(reference.forward(topology, {}, x).output.value - expected.numpy()).max() <= 1e-12
    exported = multiseg.describe(multiseg.export(topology, "caffe", tmp_path / "net.prototxt"))
    assert not exported.diff(topology)
